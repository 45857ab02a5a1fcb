//! What looks like one pool, and follows the current request's route.

use std::{
    future::Future,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bb8::{ManageConnection, Pool, PooledConnection, RunError};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, Error, Row, types::ToSql};
use tower_ryw::{
    NodeName, Reason, Route, Run, RywContext, Topology,
    topology::{InUse, NodeState, NodeView},
};

use crate::{
    backend::Backend,
    connect::{Builder, Target},
    error::{PoolError, PoolErrorKind, QueryError},
    gate::Link,
    trouble::{Trouble, note_error, trouble},
    unfinished::Trace,
    watcher::Watchers,
};

/// How often a request that waits for a connection looks whether the node is still there.
const DOWN_CHECK: Duration = Duration::from_millis(50);
/// How long a connection that was dropped in the middle of something may take to finish it before it is closed.
const FINISH: Duration = Duration::from_secs(30);

/// A pool over a primary and its replicas. Cheap to clone; the watchers stop when the last clone is dropped.
///
/// [`get`](Self::get) goes where the current request's [`RywContext`] says. The context is found as a task-local:
/// tasks that a handler starts need [`RywContext::spawn`], and what runs outside of any request gets the primary.
#[derive(Clone, Debug)]
pub struct RywPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: Vec<Node>,
    topology: Topology,
    _watchers: Watchers,
}

#[derive(Debug)]
struct Node {
    target: Arc<Target>,
    pool: Pool<Manager>,
}

/// A connection to one node, back in the pool when dropped. Dereferences to [`tokio_postgres::Client`].
///
/// Give it back outside of any transaction: one that was begun by hand (`batch_execute("begin")`) stays open for the next
/// user. [`Client::transaction`] takes care of that.
#[derive(Debug)]
pub struct RywConnection {
    node: NodeName,
    connection: Lease,
    /// What may become of a write.
    trace: Option<Arc<Trace>>,
    _in_use: Option<InUse>,
}

/// There until the connection is dropped.
#[derive(Debug)]
struct Lease(Option<PooledConnection<'static, Manager>>);

/// A client and what it leads to.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    backend: Backend,
    /// Something is under way on it that nobody waits for any more.
    abandoned: AtomicBool,
}

/// Why a statement has no answer.
#[derive(Debug)]
enum Failure {
    Error(Error),
    /// Its node went down.
    Down,
}

/// Makes connections for bb8.
#[derive(Debug)]
pub(crate) struct Manager(Arc<Target>);

impl RywPool {
    /// Settings for a pool.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        targets: Vec<Arc<Target>>,
        topology: Topology,
        watchers: Watchers,
        max: u32,
        deadline: Duration,
    ) -> Self {
        let node = |target: Arc<Target>| Node {
            pool: Pool::builder()
                .max_size(max)
                .connection_timeout(deadline)
                // A dead connection is noticed without asking: see `take`.
                .test_on_check_out(false)
                .build_unchecked(Manager(Arc::clone(&target))),
            target,
        };
        Self(Arc::new(Inner { nodes: targets.into_iter().map(node).collect(), topology, _watchers: watchers }))
    }

    /// The positions of the nodes, for [`RywLayerBuilder::positions`](tower_ryw::RywLayerBuilder::positions).
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.0.topology
    }

    /// A connection to where the current request is to be served; outside of any request, to the primary.
    ///
    /// The server at its other end has applied what the request must see: where that is not known from its watcher, it is
    /// asked. When the replica can't be had, another one serves, or the primary, and the response says so.
    ///
    /// # Errors
    /// [`PoolError`] when there is no connection within the deadline. Cancelling the future loses nothing.
    pub async fn get(&self) -> Result<RywConnection, PoolError> {
        match RywContext::current() {
            Some(context) => self.get_for(&context, &mut Vec::new()).await,
            None => Ok(self.take_primary().await?.0),
        }
    }

    /// A connection to the primary, whatever the route. In a request it counts as a write, because it can be one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn primary(&self) -> Result<RywConnection, PoolError> {
        match RywContext::current() {
            Some(context) => {
                let reason = if context.route() == Route::Primary { context.reason() } else { Reason::Write };
                self.primary_for(&context, reason, true).await
            }
            None => Ok(self.take_primary().await?.0),
        }
    }

    /// A connection to any replica in service, whatever the request must be able to see.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`PoolErrorKind::NoReplica`] when none is in service.
    pub async fn replica(&self) -> Result<RywConnection, PoolError> {
        let none = || PoolError::new("any replica", PoolErrorKind::NoReplica);
        self.any_replica(&[]).ok_or_else(none)?.take(&self.0.topology).await
    }

    /// Runs one statement where the current request is to be served, and returns its rows.
    ///
    /// A statement that a replica refuses because it writes is run on the primary instead, and the request is marked; one
    /// that a replica breaks off (a recovery conflict, a lost connection), or that it has not answered when it goes down,
    /// is run on another node.
    ///
    /// # Errors
    /// [`QueryError`]: the pool's error, or that of the statement.
    pub async fn query(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, QueryError> {
        let (mut connection, mut failed) = (self.get().await?, Vec::new());
        loop {
            match self.while_up(&connection, connection.query(statement, params)).await {
                Ok(rows) => return Ok(rows),
                Err(error) => connection = self.elsewhere(connection, error, &mut failed).await?,
            }
        }
    }

    /// As [`query`](Self::query), and returns the number of rows that were changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, QueryError> {
        let (mut connection, mut failed) = (self.get().await?, Vec::new());
        loop {
            match self.while_up(&connection, connection.execute(statement, params)).await {
                Ok(count) => return Ok(count),
                Err(error) => connection = self.elsewhere(connection, error, &mut failed).await?,
            }
        }
    }

    /// Runs a statement; on a replica, only as long as the node is there: one that has fallen silent may never answer.
    async fn while_up<T>(
        &self,
        connection: &RywConnection,
        statement: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let by_replica = connection.trace.is_none();
        let Some(node) = self.node(&connection.node).filter(|_| by_replica) else {
            return statement.await.map_err(Failure::Error);
        };
        tokio::select! {
            biased;
            answer = statement => answer.map_err(Failure::Error),
            () = node.goes_down(&self.0.topology) => {
                connection.connection.abandoned.store(true, Relaxed);
                Err(Failure::Down)
            }
        }
    }

    /// Where a single statement that has failed can be run again: it has changed nothing.
    async fn elsewhere(
        &self,
        connection: RywConnection,
        failure: Failure,
        failed: &mut Vec<NodeName>,
    ) -> Result<RywConnection, QueryError> {
        let by_replica = connection.trace.is_none();
        let found = match &failure {
            Failure::Error(error) => trouble(error).filter(|_| by_replica),
            Failure::Down => Some(Trouble::Broken),
        };
        let Some(context) = RywContext::current() else { return Err(failure.of(&connection.node)) };
        match found {
            Some(Trouble::Writes) => {
                drop(connection);
                Ok(self.primary_for(&context, Reason::Replayed, true).await?)
            }
            Some(Trouble::Broken) => {
                failed.push(connection.node.clone());
                self.0.topology.failed(&connection.node);
                drop(connection);
                Ok(self.get_for(&context, failed).await?)
            }
            None => Err(failure.of(&connection.node)),
        }
    }

    async fn get_for(&self, context: &RywContext, failed: &mut Vec<NodeName>) -> Result<RywConnection, PoolError> {
        let topology = &self.0.topology;
        let directed = (context.route(), context.reason());
        let (mut route, mut reason) = if failed.is_empty() {
            directed
        } else {
            let nobody = || PoolError::new("any replica", PoolErrorKind::NoReplica);
            context.without(failed).ok_or_else(nobody)?
        };
        loop {
            let replica = match &route {
                Route::Replica { node: Some(name) } => self.node(name),
                // Positions come from elsewhere, or from nowhere: any replica that answers.
                Route::Replica { node: None } => self.any_replica(failed),
                _ => None,
            };
            let Some(replica) = replica else { break };
            let name = &replica.target.name;
            match replica.take_admitted(topology, context).await {
                Ok((connection, run)) => {
                    topology.succeeded(name);
                    context.served_by(Route::Replica { node: Some(name.clone()) }, reason, Some(run));
                    return Ok(connection);
                }
                Err(error) => {
                    tracing::warn!(node = %name, %error, "replica can't be used");
                    if error.kind() != PoolErrorKind::Behind {
                        topology.failed(name);
                    }
                    failed.push(name.clone());
                    (route, reason) = context.without(failed).ok_or(error)?;
                }
            }
        }
        let reason = if context.route() == Route::Primary { context.reason() } else { Reason::NoReplica };
        self.primary_for(context, reason, false).await
    }

    async fn primary_for(
        &self,
        context: &RywContext,
        reason: Reason,
        writes: bool,
    ) -> Result<RywConnection, PoolError> {
        let (connection, run) = self.take_primary().await?;
        context.served_by(Route::Primary, reason, Some(run));
        if let Some(trace) = connection.trace.clone() {
            context.unfinished_until(move || {
                trace.doubt();
                trace.ended()
            });
        }
        if writes {
            context.mark_written();
        }
        Ok(connection)
    }

    /// Only the primary that is known: the one that was configured may have become a standby, or its reign may have
    /// ended.
    async fn take_primary(&self) -> Result<(RywConnection, Run), PoolError> {
        let topology = &self.0.topology;
        let name = topology.view().primary().map(|node| node.name().clone());
        let known = name.and_then(|name| self.node(&name));
        let first = self.0.nodes[0].target.name.as_str();
        let node = known.ok_or_else(|| PoolError::new(first, PoolErrorKind::NoPrimary))?;
        let mut connection = node.take(topology).await?;
        let run = connection.link().admit_write(topology).await?;
        connection.trace = Some(Trace::new(&node.target, &connection.connection.backend));
        Ok((connection, run))
    }

    fn any_replica(&self, excluded: &[NodeName]) -> Option<&Node> {
        let view = self.0.topology.view();
        let serves = |node: &&NodeView| node.state() == NodeState::Replica && !excluded.contains(node.name());
        let up: Vec<_> = view.nodes().iter().filter(serves).collect();
        self.node(fastrand::choice(up)?.name())
    }

    fn node(&self, name: &NodeName) -> Option<&Node> {
        self.0.nodes.iter().find(|node| node.target.name == *name)
    }
}

impl Node {
    /// A connection whose server may serve this request.
    async fn take_admitted(
        &self,
        topology: &Topology,
        context: &RywContext,
    ) -> Result<(RywConnection, Run), PoolError> {
        let connection = self.take(topology).await?;
        let run = connection.link().admit_read(topology, context).await?;
        Ok((connection, run))
    }

    /// A live connection, within the pool's deadline; at once an error when the node goes down meanwhile.
    async fn take(&self, topology: &Topology) -> Result<RywConnection, PoolError> {
        let name = &self.target.name;
        let error_of = |kind| PoolError::new(name.as_str(), kind);
        loop {
            let connection = tokio::select! {
                biased;
                connection = self.pool.get_owned() => connection,
                () = self.goes_down(topology) => return Err(error_of(PoolErrorKind::Down)),
            };
            let connection = connection.map_err(|error| match error {
                RunError::User(error) => error_of(PoolErrorKind::Connect).with_source(error),
                RunError::TimedOut => error_of(PoolErrorKind::Timeout),
            })?;
            // One that died while idle: dropping it makes room for a new one.
            if !connection.client.is_closed() {
                let connection = Lease(Some(connection));
                return Ok(RywConnection {
                    node: name.clone(),
                    connection,
                    trace: None,
                    _in_use: topology.in_use(name),
                });
            }
        }
    }

    async fn goes_down(&self, topology: &Topology) {
        let is_down = |node: &NodeView| *node.name() == self.target.name && node.state() == NodeState::Down;
        while !topology.view().nodes().iter().any(is_down) {
            sleep(DOWN_CHECK).await;
        }
    }
}

impl Failure {
    fn of(self, node: &NodeName) -> QueryError {
        match self {
            Self::Error(error) => error.into(),
            Self::Down => PoolError::new(node.as_str(), PoolErrorKind::Down).into(),
        }
    }
}

impl RywConnection {
    /// The node it is to.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Tells the request about an error of this connection that would not occur elsewhere, see
    /// [`note_error`](crate::note_error).
    pub fn note_error(&self, error: &Error) {
        if self.trace.is_none() {
            note_error(error);
        }
    }

    fn link(&self) -> Link<'_> {
        Link { node: &self.node, client: &self.connection.client, backend: &self.connection.backend }
    }
}

impl Drop for RywConnection {
    fn drop(&mut self) {
        let Some(trace) = self.trace.take() else { return };
        if !trace.is_doubtful() {
            return trace.given_back();
        }
        // The request was cut short. The connection is asked, and goes back when it has answered: until then it is busy
        // with what it was doing.
        match (Handle::try_current(), self.connection.0.take()) {
            (Ok(runtime), Some(connection)) => drop(runtime.spawn(async move {
                let answered = timeout(FINISH, connection.client.simple_query("")).await;
                trace.asked(matches!(answered, Ok(Ok(_))));
            })),
            _ => trace.asked(false),
        }
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match &self.0 {
            Some(connection) => connection,
            None => unreachable!("taken by drop only"),
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        match &mut self.0 {
            Some(connection) => connection,
            None => unreachable!("taken by drop only"),
        }
    }
}

impl Deref for RywConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.connection.client
    }
}

impl DerefMut for RywConnection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.connection.client
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self) -> Result<Connection, Error> {
        let client = self.0.make.connect(self.0.config.clone()).await?;
        let backend = Backend::of(&client).await?;
        Ok(Connection { client, backend, abandoned: AtomicBool::new(false) })
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Error> {
        connection.client.simple_query("").await.map(drop)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.client.is_closed() || connection.abandoned.load(Relaxed)
    }
}
