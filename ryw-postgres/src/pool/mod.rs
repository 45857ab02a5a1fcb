//! What all pools have in common: how a request's route becomes a connection.

#[cfg(feature = "bb8")]
mod bb8;
mod error;
#[cfg(feature = "sqlx")]
mod sqlx;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tower_ryw::{
    NodeName, Reason, Route, RywContext,
    topology::{NodeState, NodeView},
};

use crate::{gate::Admitted, nodes::Nodes, trouble::Trouble, unfinished::Trace};

#[cfg(feature = "sqlx")]
pub use self::sqlx::{RywSqlxPool, SqlxOptions};
pub use error::{PoolError, PoolErrorKind};
#[cfg(feature = "bb8")]
pub use {
    bb8::{RywConnection, RywPool},
    error::QueryError,
};

/// How often whoever waits for a node looks whether it is still there.
const DOWN_CHECK: Duration = Duration::from_millis(50);
/// How long a node has to be down before its answer is not waited for any more: its watcher may only have been cut off.
const SILENCE: Duration = Duration::from_secs(1);

/// Connections to each node, in the order of [`Nodes::targets`].
pub(crate) trait Pools: Sync {
    /// A connection that is in use.
    type Connection: Send;

    fn nodes(&self) -> &Nodes;

    /// A connection to that node, whose server may serve the request.
    fn read(
        &self,
        node: usize,
        context: &RywContext,
    ) -> impl Future<Output = Result<(Self::Connection, Admitted), PoolError>> + Send;

    /// A connection to that node, whose server is the primary, and what may become of what is written over it.
    fn write(
        &self,
        node: usize,
    ) -> impl Future<Output = Result<(Self::Connection, Admitted, Arc<Trace>), PoolError>> + Send;
}

/// A connection to where the request is to be served. Nodes that can't be used are added to `failed`.
pub(crate) async fn follow<P: Pools>(
    pools: &P,
    context: &RywContext,
    failed: &mut Vec<NodeName>,
) -> Result<P::Connection, PoolError> {
    let (nodes, topology) = (pools.nodes(), pools.nodes().topology());
    let (mut route, mut reason) = if failed.is_empty() {
        (context.route(), context.reason())
    } else {
        context.without(failed).ok_or_else(no_replica)?
    };
    loop {
        let (name, replica) = match &route {
            Route::Replica { node: Some(name) } => (name.clone(), nodes.find(name)),
            // Positions come from elsewhere, or from nowhere: any replica that answers.
            Route::Replica { node: None } => match nodes.any_replica(failed) {
                Some(replica) => (nodes.name(replica).clone(), Some(replica)),
                None => return to_primary(pools, context, context.without_replicas().ok_or_else(no_replica)?).await,
            },
            _ => return to_primary(pools, context, reason).await,
        };
        let connected = match replica {
            Some(replica) => pools.read(replica, context).await,
            None => Err(PoolError::new(name.as_str(), PoolErrorKind::NoReplica)),
        };
        match connected {
            Ok((connection, admitted)) => {
                topology.succeeded(&name);
                let run = admitted.run(&name);
                context.served_by(Route::Replica { node: Some(name) }, reason, Some(run));
                return Ok(connection);
            }
            Err(error) => {
                tracing::warn!(node = %name, %error, "replica can't be used");
                if error.kind() != PoolErrorKind::Behind {
                    topology.failed(&name);
                }
                failed.push(name);
                if !matches!(route, Route::Replica { node: None }) {
                    (route, reason) = context.without(failed).ok_or(error)?;
                }
            }
        }
    }
}

pub(crate) fn no_replica() -> PoolError {
    PoolError::new("any replica", PoolErrorKind::NoReplica)
}

/// A connection to the primary, for a part of the request that may write.
pub(crate) async fn to_write<P: Pools>(
    pools: &P,
    context: &RywContext,
    reason: Reason,
) -> Result<P::Connection, PoolError> {
    // Before it is tried: it counts as a write from here on.
    context.mark_written();
    to_primary(pools, context, reason).await
}

/// Why a statement has no answer.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    Error(E),
    /// Its node went down.
    Down(PoolError),
}

impl<E> Failure<E> {
    /// What it says about the node, and not about the statement.
    pub(crate) fn trouble(&self, of_error: impl FnOnce(&E) -> Option<Trouble>) -> Option<Trouble> {
        match self {
            Self::Error(error) => of_error(error),
            Self::Down(_) => Some(Trouble::Broken),
        }
    }
}

/// Runs a statement; on a replica, only as long as the node is there: one that has fallen silent may never answer.
pub(crate) async fn while_up<T, E>(
    nodes: &Nodes,
    replica: Option<&NodeName>,
    statement: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure<E>> {
    let Some((name, node)) = replica.and_then(|name| Some((name, nodes.find(name)?))) else {
        return statement.await.map_err(Failure::Error);
    };
    tokio::select! {
        biased;
        answer = statement => answer.map_err(Failure::Error),
        () = nodes.goes_down(node, SILENCE) => Err(Failure::Down(PoolError::new(name.as_str(), PoolErrorKind::Down))),
    }
}

/// Why the primary serves when it was asked for by name.
pub(crate) fn reason_of(context: &RywContext) -> Reason {
    if context.route() == Route::Primary { context.reason() } else { Reason::Write }
}

async fn to_primary<P: Pools>(pools: &P, context: &RywContext, reason: Reason) -> Result<P::Connection, PoolError> {
    let nodes = pools.nodes();
    let primary = nodes.primary()?;
    let (connection, admitted, trace) = pools.write(primary).await?;
    if context.may_write() {
        match context.refuses_write(admitted.position) {
            None => {}
            Some(Reason::Lost) => return Err(PoolError::new(nodes.name(primary).as_str(), PoolErrorKind::Lost)),
            Some(_) => return Err(PoolError::new(nodes.name(primary).as_str(), PoolErrorKind::Behind)),
        }
    }
    context.served_by(Route::Primary, reason, Some(admitted.run(nodes.name(primary))));
    context.unfinished_until(move || trace.ended());
    Ok(connection)
}

impl Nodes {
    pub(crate) fn name(&self, node: usize) -> &NodeName {
        &self.targets[node].name
    }

    /// Only the primary that is known: the one that was configured may have become a standby, or its reign may have
    /// ended.
    pub(crate) fn primary(&self) -> Result<usize, PoolError> {
        let name = self.topology().view().primary().map(|node| node.name().clone());
        let none = || PoolError::new(self.name(0).as_str(), PoolErrorKind::NoPrimary);
        name.and_then(|name| self.find(&name)).ok_or_else(none)
    }

    pub(crate) fn any_replica(&self, excluded: &[NodeName]) -> Option<usize> {
        let view = self.topology().view();
        let serves = |node: &&NodeView| node.state() == NodeState::Replica && !excluded.contains(node.name());
        let up: Vec<_> = view.nodes().iter().filter(serves).collect();
        self.find(fastrand::choice(up)?.name())
    }

    /// Completes when the node is down, and has been for so long.
    pub(crate) async fn goes_down(&self, node: usize, enough: Duration) {
        let is_down =
            || self.topology().view().node(self.name(node)).is_some_and(|node| node.state() == NodeState::Down);
        let mut since = None;
        loop {
            if !is_down() {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= enough {
                return;
            }
            sleep(DOWN_CHECK).await;
        }
    }

    fn find(&self, name: &NodeName) -> Option<usize> {
        self.targets.iter().position(|target| target.name == *name)
    }
}
