//! What looks like one pool, and follows the current request's route.

use std::{
    future::pending,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bb8::{ManageConnection, Pool, PooledConnection, RunError};
use parking_lot::Mutex;
use ryw_core::Position;
use tokio::{runtime::Handle, sync::watch, time::timeout};
use tokio_postgres::{Client, Error, Row, Statement, types::ToSql};
use tower_ryw::{
    NodeName, Reason, RywContext, Topology,
    topology::{InUse, Role},
};

use super::{Failure, PoolError, PoolErrorKind, Pools, QueryError, follow, no_replica, reason_of, to_write, while_up};
use crate::{
    backend::{ASK_DEADLINE, Backend},
    connect::{Builder, Target},
    error::{ConnectError, innermost},
    gate::{Admitted, Link},
    nodes::Nodes,
    reading::{Capture, NodeReading, parse, prepare},
    trouble::{Trouble, note_error, trouble},
    unfinished::Trace,
};

/// How long a connection to the primary that was dropped in the middle of something may take to finish it before it is
/// closed.
const FINISH: Duration = Duration::from_secs(30);
/// The same to a replica, where nobody misses what is broken off.
const FINISH_READ: Duration = Duration::from_millis(100);

/// A pool over a primary and its replicas. Cheap to clone; the watchers stop when the last clone is dropped.
///
/// [`get`](Self::get) goes where the current request's [`RywContext`] says. The context is found as a task-local:
/// tasks that a handler starts need [`RywContext::spawn`], and what runs outside of any request gets the primary.
#[derive(Clone, Debug)]
pub struct RywPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: Nodes,
    pools: Vec<(Pool<Manager>, Refused)>,
}

/// A connection to one node, back in the pool when dropped. Dereferences to [`tokio_postgres::Client`].
///
/// Give it back outside of any transaction: one that was begun by hand (`batch_execute("begin")`) stays open for the next
/// user. [`Client::transaction`] takes care of that.
///
/// A request that is cut short drops its connection in the middle of something. Such a connection stays out of the pool
/// until it is done, and counts for [`max_connections`](Builder::max_connections): on the primary it is closed after half a
/// minute, on a replica the statement is cancelled after a tenth of a second. A handler that gives up on a statement and goes
/// on (with a timeout around it) had better keep the connection: whoever gets it next would wait for the statement.
#[derive(Debug)]
pub struct RywConnection {
    node: NodeName,
    connection: Lease,
    /// What may become of a write.
    trace: Option<Arc<Trace>>,
    /// Who uses it.
    request: Option<RywContext>,
    /// A statement that was given to the pool itself is under way.
    at_work: bool,
    _in_use: Option<InUse>,
}

/// How long to wait for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    UntilDeadline,
    /// No longer than until the server has refused one.
    UntilRefused,
}

/// There until the connection is dropped.
#[derive(Debug)]
struct Lease(Option<PooledConnection<'static, Manager>>);

/// A client and what it leads to.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    target: Arc<Target>,
    backend: Backend,
    seen: Mutex<Seen>,
    /// Something is under way on it that nobody waits for any more.
    abandoned: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    /// What this very server had applied when it was asked over this connection, and was a replica.
    applied: Option<Position>,
    /// The question, once it has been asked.
    read: Option<Statement>,
}

/// Makes connections for bb8.
#[derive(Debug)]
pub(crate) struct Manager {
    target: Arc<Target>,
    refused: Refused,
}

/// Why a server has last refused a connection. bb8 tries again by itself until somebody's deadline, and does not say why.
type Refused = Arc<watch::Sender<Option<String>>>;

impl RywPool {
    /// Settings for a pool.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The positions of the nodes, for [`RywLayerBuilder::positions`](tower_ryw::RywLayerBuilder::positions).
    #[must_use]
    pub fn topology(&self) -> &Topology {
        self.0.nodes.topology()
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
            Some(context) => follow(&*self.0, &context, &mut Vec::new()).await,
            None => self.0.take_primary().await,
        }
    }

    /// A connection to the primary, whatever the route. In a request it counts as a write, because it can be one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn primary(&self) -> Result<RywConnection, PoolError> {
        match RywContext::current() {
            Some(context) => to_write(&*self.0, &context, reason_of(&context)).await,
            None => self.0.take_primary().await,
        }
    }

    /// A connection to any replica in service, whatever the request must be able to see.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`PoolErrorKind::NoReplica`] when none is in service.
    pub async fn replica(&self) -> Result<RywConnection, PoolError> {
        self.0.take(self.0.nodes.any_replica(&[]).ok_or_else(no_replica)?, Patience::UntilDeadline).await
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
            connection.at_work = true;
            let ran = while_up(&self.0.nodes, connection.replica(), connection.query(statement, params)).await;
            connection.at_work = false;
            match ran {
                Ok(rows) => return Ok(rows),
                Err(failure) => connection = self.elsewhere(connection, failure, &mut failed).await?,
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
            connection.at_work = true;
            let ran = while_up(&self.0.nodes, connection.replica(), connection.execute(statement, params)).await;
            connection.at_work = false;
            match ran {
                Ok(count) => return Ok(count),
                Err(failure) => connection = self.elsewhere(connection, failure, &mut failed).await?,
            }
        }
    }

    /// Where a single statement that has failed can be run again: it has changed nothing.
    async fn elsewhere(
        &self,
        connection: RywConnection,
        failure: Failure<Error>,
        failed: &mut Vec<NodeName>,
    ) -> Result<RywConnection, QueryError> {
        if let Failure::Down(_) = failure {
            connection.connection.abandoned.store(true, Relaxed);
        }
        let found = failure.trouble(trouble).filter(|_| connection.replica().is_some());
        let (Some(context), Some(found)) = (RywContext::current(), found) else {
            return Err(match failure {
                Failure::Error(error) => error.into(),
                Failure::Down(error) => error.into(),
            });
        };
        let node = connection.node.clone();
        drop(connection);
        Ok(match found {
            Trouble::Writes => to_write(&*self.0, &context, Reason::Replayed).await?,
            Trouble::Broken => {
                self.0.nodes.topology().failed(&node);
                failed.push(node);
                follow(&*self.0, &context, failed).await?
            }
        })
    }
}

impl Pools for Inner {
    type Connection = RywConnection;

    fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    async fn read(&self, node: usize, context: &RywContext) -> Result<(RywConnection, Admitted), PoolError> {
        // Somebody else may have a connection for it.
        let connection = self.take(node, Patience::UntilRefused).await?;
        let admitted = connection.link().admit_read(self.nodes.topology(), context, connection.ask()).await?;
        Ok((connection, admitted))
    }

    async fn write(&self, node: usize) -> Result<(RywConnection, Admitted, Arc<Trace>), PoolError> {
        let mut connection = self.take(node, Patience::UntilDeadline).await?;
        let admitted = connection.link().admit_write(self.nodes.topology(), connection.ask()).await?;
        let trace = Trace::of_backend(&self.nodes, node, admitted, &connection.connection.backend);
        connection.trace = Some(Arc::clone(&trace));
        Ok((connection, admitted, trace))
    }
}

impl Inner {
    async fn take_primary(&self) -> Result<RywConnection, PoolError> {
        Ok(self.write(self.nodes.primary()?).await?.0)
    }

    /// A live connection, within the pool's deadline; at once an error when the node goes down meanwhile.
    async fn take(&self, node: usize, patience: Patience) -> Result<RywConnection, PoolError> {
        let name = self.nodes.name(node);
        let (pool, refused) = &self.pools[node];
        let error_of = |kind| PoolError::new(name.as_str(), kind);
        let because = |error: PoolError| match &*refused.borrow() {
            Some(why) => error.with_source(why.clone()),
            None => error,
        };
        // What has been refused before is no concern of this request.
        let mut refusals = refused.subscribe();
        loop {
            let is_refused = async {
                while refusals.changed().await.is_ok() {
                    if refusals.borrow_and_update().is_some() {
                        return;
                    }
                }
                // There is nobody to make connections any more.
                pending().await
            };
            let connection = tokio::select! {
                biased;
                connection = pool.get_owned() => connection,
                () = self.nodes.goes_down(node, Duration::ZERO) => return Err(error_of(PoolErrorKind::Down)),
                () = is_refused, if patience == Patience::UntilRefused => {
                    return Err(because(error_of(PoolErrorKind::Connect)));
                }
            };
            let connection = connection.map_err(|error| match error {
                RunError::User(error) => error_of(PoolErrorKind::Connect).with_source(error),
                RunError::TimedOut => because(error_of(PoolErrorKind::Timeout)),
            })?;
            // One that died while idle: dropping it makes room for a new one.
            if !connection.client.is_closed() {
                let in_use = self.nodes.topology().in_use(name);
                let connection = Lease(Some(connection));
                let (node, request) = (name.clone(), RywContext::current());
                return Ok(RywConnection { node, connection, trace: None, request, at_work: false, _in_use: in_use });
            }
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
        if self.replica().is_some() {
            note_error(error);
        }
    }

    /// The node, when it is a replica.
    fn replica(&self) -> Option<&NodeName> {
        self.trace.is_none().then_some(&self.node)
    }

    fn link(&self) -> Link<'_> {
        let Connection { backend, seen, .. } = &*self.connection;
        Link { node: &self.node, server: Some(backend.server), applied: seen.lock().applied }
    }

    /// Asks this very server, over this very connection. No transaction may be open on it.
    async fn ask(&self) -> Result<Option<NodeReading>, Error> {
        let Connection { client, backend, seen, .. } = &*self.connection;
        let prepared = seen.lock().read.clone();
        let read = match prepared {
            Some(read) => read,
            None => prepare(client).await?,
        };
        let reading = parse(&client.query_one(&read, &[&false]).await?, backend.server.incarnation, Capture::Auto)?;
        let applied = reading.filter(|reading| reading.role == Role::Replica && reading.epoch_is_certain);
        *seen.lock() = Seen { applied: applied.map(|reading| reading.position), read: Some(read) };
        Ok(reading)
    }
}

impl Drop for RywConnection {
    fn drop(&mut self) {
        let trace = self.trace.take();
        let is_doubtful = trace.as_ref().is_some_and(|trace| trace.is_doubtful());
        let is_over = self.request.as_ref().is_some_and(RywContext::has_ended);
        if !(is_doubtful || is_over || self.at_work || std::thread::panicking()) {
            if let Some(trace) = trace {
                trace.given_back();
            }
            return;
        }
        let Some(connection) = self.connection.0.take() else { return };
        match Handle::try_current() {
            // Ends by `FINISH`.
            Ok(runtime) => drop(runtime.spawn(connection_is_done(connection, trace))),
            Err(_) => {
                connection.abandoned.store(true, Relaxed);
                if let Some(trace) = trace {
                    trace.asked(false);
                }
            }
        }
    }
}

/// The connection may be busy with what a request has left behind. It is asked, and goes back to the pool when it has
/// answered; otherwise it is closed.
async fn connection_is_done(connection: PooledConnection<'static, Manager>, trace: Option<Arc<Trace>>) {
    let Connection { client, target, abandoned, .. } = &*connection;
    let enough = if trace.is_some() { FINISH } else { FINISH_READ };
    let answered = matches!(timeout(enough, client.simple_query("")).await, Ok(Ok(_)));
    abandoned.store(!answered, Relaxed);
    match trace {
        Some(trace) => trace.asked(answered),
        // The server would go on with it. It may also cancel the next statement, were there to be one.
        None if !answered && !client.is_closed() => {
            if let Ok(Err(error)) = timeout(ASK_DEADLINE, target.make.cancel(client.cancel_token())).await {
                tracing::debug!(node = %target.name, %error, "a read that nobody waits for can't be cancelled");
            }
        }
        None => {}
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

impl Builder {
    /// As [`watch`](Self::watch), with a pool.
    ///
    /// # Errors
    /// [`ConnectError`] names the node and says what to change.
    #[cfg_attr(docsrs, doc(cfg(feature = "bb8")))]
    pub async fn connect(self) -> Result<RywPool, ConnectError> {
        let (max, deadline) = (self.max_connections, self.connect_deadline);
        let nodes = self.watch().await?;
        let pool = |target: &Arc<Target>| {
            let (target, refused) = (Arc::clone(target), Refused::default());
            let pool = Pool::builder()
                .max_size(max)
                .connection_timeout(deadline)
                // A dead connection is noticed without asking: see `take`.
                .test_on_check_out(false)
                .build_unchecked(Manager { target, refused: Arc::clone(&refused) });
            (pool, refused)
        };
        let pools = nodes.targets.iter().map(pool).collect();
        Ok(RywPool(Arc::new(Inner { nodes, pools })))
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self) -> Result<Connection, Error> {
        let connecting = async {
            let client = self.target.make.connect(self.target.config.clone()).await?;
            let backend = Backend::of(&client).await?;
            Ok((client, backend))
        };
        let connected: Result<_, Error> = connecting.await;
        self.refused.send_replace(connected.as_ref().err().map(|error| innermost(error).to_string()));
        let ((client, backend), target) = (connected?, Arc::clone(&self.target));
        Ok(Connection { client, target, backend, seen: Mutex::default(), abandoned: AtomicBool::new(false) })
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Error> {
        connection.client.simple_query("").await.map(drop)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.client.is_closed() || connection.abandoned.load(Relaxed)
    }
}
