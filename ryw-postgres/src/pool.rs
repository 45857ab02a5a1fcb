//! What looks like one pool, and follows the current request's route.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use bb8::{ManageConnection, Pool, PooledConnection, RunError};
use tokio::time::sleep;
use tokio_postgres::{Client, Error};
use tower_ryw::{
    NodeName, Reason, Route, RywContext, Topology,
    topology::{NodeState, NodeView},
};

use crate::{
    connect::{Builder, Target},
    error::{PoolError, PoolErrorKind},
    watcher::Watchers,
};

/// How often a request that waits for a connection looks whether the node is still there.
const DOWN_CHECK: Duration = Duration::from_millis(50);

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
    name: NodeName,
    pool: Pool<Manager>,
}

/// A connection to one node, back in the pool when dropped. Dereferences to [`tokio_postgres::Client`].
#[derive(Debug)]
pub struct RywConnection {
    node: NodeName,
    connection: PooledConnection<'static, Manager>,
}

/// Makes connections for bb8.
#[derive(Debug)]
struct Manager(Target);

impl RywPool {
    /// Settings for a pool.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        targets: Vec<Target>,
        topology: Topology,
        watchers: Watchers,
        max: u32,
        deadline: Duration,
    ) -> Self {
        let node = |target: Target| Node {
            name: target.name.clone(),
            pool: Pool::builder()
                .max_size(max)
                .connection_timeout(deadline)
                // A dead connection is noticed without asking: see `take`.
                .test_on_check_out(false)
                .build_unchecked(Manager(target)),
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
    /// When the replica can't be had, the primary serves, and the response says so.
    ///
    /// # Errors
    /// [`PoolError`] when there is no connection within the deadline. Cancelling the future loses nothing.
    pub async fn get(&self) -> Result<RywConnection, PoolError> {
        let Some(context) = RywContext::current() else { return self.take_primary().await };
        let replica = match context.route() {
            Route::Replica { node: Some(name) } => self.node(&name),
            // Positions come from elsewhere, or from nowhere: any replica that answers.
            Route::Replica { node: None } => self.any_replica(),
            _ => return self.take_primary().await,
        };
        if let Some(replica) = replica {
            match replica.take(&self.0.topology).await {
                Ok(connection) => {
                    context.served_by(Route::Replica { node: Some(replica.name.clone()) }, context.reason(), None);
                    return Ok(connection);
                }
                Err(error) => tracing::warn!(node = %replica.name, %error, "replica can't be used: the primary serves"),
            }
        }
        let connection = self.take_primary().await?;
        context.served_by(Route::Primary, Reason::NoReplica, None);
        Ok(connection)
    }

    /// A connection to the primary, whatever the route. In a request it counts as a write, because it can be one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn primary(&self) -> Result<RywConnection, PoolError> {
        let connection = self.take_primary().await?;
        if let Some(context) = RywContext::current() {
            context.mark_written();
        }
        Ok(connection)
    }

    /// A connection to any replica in service, whatever the request must be able to see.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`PoolErrorKind::NoReplica`] when none is in service.
    pub async fn replica(&self) -> Result<RywConnection, PoolError> {
        let none = || PoolError::new("any replica", PoolErrorKind::NoReplica);
        self.any_replica().ok_or_else(none)?.take(&self.0.topology).await
    }

    /// Only the primary that is known: the one that was configured may have become a standby, or its reign may have
    /// ended.
    async fn take_primary(&self) -> Result<RywConnection, PoolError> {
        let name = self.0.topology.view().primary().map(|node| node.name().clone());
        let known = name.and_then(|name| self.node(&name));
        let first = self.0.nodes[0].name.as_str();
        known.ok_or_else(|| PoolError::new(first, PoolErrorKind::NoPrimary))?.take(&self.0.topology).await
    }

    fn any_replica(&self) -> Option<&Node> {
        let view = self.0.topology.view();
        let up: Vec<_> = view.nodes().iter().filter(|node| node.state() == NodeState::Replica).collect();
        self.node(fastrand::choice(up)?.name())
    }

    fn node(&self, name: &NodeName) -> Option<&Node> {
        self.0.nodes.iter().find(|node| node.name == *name)
    }
}

impl Node {
    /// A live connection, within the pool's deadline; at once an error when the node goes down meanwhile.
    async fn take(&self, topology: &Topology) -> Result<RywConnection, PoolError> {
        let error_of = |kind| PoolError::new(self.name.as_str(), kind);
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
            if !connection.is_closed() {
                return Ok(RywConnection { node: self.name.clone(), connection });
            }
        }
    }

    async fn goes_down(&self, topology: &Topology) {
        let is_down = |node: &NodeView| *node.name() == self.name && node.state() == NodeState::Down;
        while !topology.view().nodes().iter().any(is_down) {
            sleep(DOWN_CHECK).await;
        }
    }
}

impl RywConnection {
    /// The node it is to.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }
}

impl Deref for RywConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.connection
    }
}

impl DerefMut for RywConnection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.connection
    }
}

impl ManageConnection for Manager {
    type Connection = Client;
    type Error = Error;

    async fn connect(&self) -> Result<Client, Error> {
        self.0.make.connect(self.0.config.clone()).await
    }

    async fn is_valid(&self, client: &mut Client) -> Result<(), Error> {
        client.simple_query("").await.map(drop)
    }

    fn has_broken(&self, client: &mut Client) -> bool {
        client.is_closed()
    }
}
