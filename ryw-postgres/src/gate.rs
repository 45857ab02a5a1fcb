//! May this very connection serve this request?
//!
//! A decision is taken from what watchers have read. It holds for the server that they have read it from, and a
//! connection may lead to another: a replica that was replaced behind its address, an address that is balanced over
//! several. As long as the connection's server is the one that was read, nothing has to be asked.

use std::{error::Error, future::Future};

use ryw_core::{Epoch, Position};
use tokio::time::timeout;
use tower_ryw::{
    NodeName, Run, RywContext, Topology,
    topology::{NodeState, NodeView, Role},
};

use crate::{
    backend::{ASK_DEADLINE, Server},
    pool::{PoolError, PoolErrorKind},
    reading::NodeReading,
};

/// A connection, and what is known of what is behind it without asking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) server: Option<Server>,
    /// What that server has said earlier over this connection.
    pub(crate) applied: Option<Position>,
}

/// Which server serves, and what it had applied or written then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub(crate) server: Server,
    pub(crate) position: Position,
}

impl Admitted {
    pub(crate) fn epoch(&self) -> Epoch {
        self.position.epoch()
    }

    pub(crate) fn run(&self, node: &NodeName) -> Run {
        Run::new(node.clone(), self.server.incarnation, self.position)
    }
}

impl Link<'_> {
    /// Whether the server has applied what the request must see, before any snapshot of the request. `ask` asks it over
    /// this very connection, where that is needed.
    pub(crate) async fn admit_read<E>(
        self,
        topology: &Topology,
        context: &RywContext,
        ask: impl Future<Output = Result<Option<NodeReading>, E>>,
    ) -> Result<Admitted, PoolError>
    where
        E: Error + Send + Sync + 'static,
    {
        // What a primary has written, it need not show yet: it does not serve as a replica.
        let read = self.read_by_watcher(topology, |state| matches!(state, NodeState::Replica | NodeState::Ejected));
        let known = read.or_else(|| self.answered());
        if let Some(known) = known.filter(|known| context.admits(known.position)) {
            return Ok(known);
        }
        match self.asked(topology, ask).await? {
            (Role::Replica, answer) if context.admits(answer.position) => Ok(answer),
            _ => Err(self.error(PoolErrorKind::Behind)),
        }
    }

    /// Whether the server is the primary of the newest epoch.
    pub(crate) async fn admit_write<E>(
        self,
        topology: &Topology,
        ask: impl Future<Output = Result<Option<NodeReading>, E>>,
    ) -> Result<Admitted, PoolError>
    where
        E: Error + Send + Sync + 'static,
    {
        if let Some(known) = self.read_by_watcher(topology, |state| state == NodeState::Primary) {
            return Ok(known);
        }
        let (role, answer) = self.asked(topology, ask).await?;
        let position = answer.position;
        let view = topology.view();
        let place = view.primary().and_then(NodeView::applied).map(|at| (at.cluster(), at.epoch()));
        let newest = place.is_none_or(|(cluster, epoch)| position.cluster() == cluster && position.epoch() >= epoch);
        if role == Role::Primary && newest { Ok(answer) } else { Err(self.error(PoolErrorKind::NoPrimary)) }
    }

    /// What the watcher has last read, when it has read it from this very server.
    fn read_by_watcher(self, topology: &Topology, is_able: impl Fn(NodeState) -> bool) -> Option<Admitted> {
        let server = self.server?;
        Some(Admitted { server, position: self.watched(topology, server, is_able)? })
    }

    fn watched(self, topology: &Topology, server: Server, is_able: impl Fn(NodeState) -> bool) -> Option<Position> {
        let view = topology.view();
        let node = view.node(self.node)?;
        let position = node.applied().filter(|position| position.cluster() == server.cluster)?;
        (is_able(node.state()) && node.incarnation() == server.incarnation).then_some(position)
    }

    fn answered(self) -> Option<Admitted> {
        Some(Admitted { server: self.server?, position: self.applied? })
    }

    async fn asked<E>(
        self,
        topology: &Topology,
        ask: impl Future<Output = Result<Option<NodeReading>, E>>,
    ) -> Result<(Role, Admitted), PoolError>
    where
        E: Error + Send + Sync + 'static,
    {
        match timeout(ASK_DEADLINE, ask).await {
            Ok(Ok(Some(reading))) => {
                let server = reading.into();
                let serves = |state| matches!(state, NodeState::Primary | NodeState::Replica | NodeState::Ejected);
                let watched = self.watched(topology, server, serves);
                let reading = reading.at_least(watched.map(|watched| watched.epoch()));
                // It is as little known to be fresh as one that has applied nothing.
                let is_known = reading.is_known(topology.view().epoch());
                let known = is_known.then_some((reading.role, Admitted { server, position: reading.position }));
                known.ok_or_else(|| self.error(PoolErrorKind::Behind))
            }
            Ok(Ok(None)) => Err(self.error(PoolErrorKind::Behind)),
            Ok(Err(error)) => Err(self.error(PoolErrorKind::Connect).with_source(error)),
            Err(late) => Err(self.error(PoolErrorKind::Down).with_source(late)),
        }
    }

    fn error(self, kind: PoolErrorKind) -> PoolError {
        PoolError::new(self.node.as_str(), kind)
    }
}

#[cfg(test)]
mod tests;
