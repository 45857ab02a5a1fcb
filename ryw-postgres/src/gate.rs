//! May this very connection serve this request?
//!
//! A decision is taken from what watchers have read. It holds for the server that they have read it from, and a
//! connection may lead to another: a replica that was replaced behind its address, an address that is balanced over
//! several. As long as the connection's server is the one that was read, nothing has to be asked.

use ryw_core::Position;
use tokio::time::timeout;
use tokio_postgres::Client;
use tower_ryw::{
    NodeName, Run, RywContext, Topology,
    topology::{NodeState, NodeView, Role},
};

use crate::{
    backend::{ASK_DEADLINE, Backend},
    error::{PoolError, PoolErrorKind},
};

/// A connection and what is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) client: &'a Client,
    pub(crate) backend: &'a Backend,
}

impl Link<'_> {
    /// Whether the server has applied what the request must see, before any snapshot of the request.
    pub(crate) async fn admit_read(self, topology: &Topology, context: &RywContext) -> Result<Run, PoolError> {
        let known = self.read_by_watcher(topology).or_else(|| self.backend.position());
        if let Some(position) = known.filter(|position| context.admits(*position)) {
            return Ok(self.run(position));
        }
        match self.ask().await? {
            (_, position) if context.admits(position) => Ok(self.run(position)),
            _ => Err(self.error(PoolErrorKind::Behind)),
        }
    }

    /// Whether the server is the primary of the newest epoch.
    pub(crate) async fn admit_write(self, topology: &Topology) -> Result<Run, PoolError> {
        if let Some(position) = self.read_by_watcher(topology) {
            return Ok(self.run(position));
        }
        let (role, position) = self.ask().await?;
        let view = topology.view();
        let place = view.primary().and_then(NodeView::applied).map(|at| (at.cluster(), at.epoch()));
        let newest = place.is_none_or(|(cluster, epoch)| position.cluster() == cluster && position.epoch() >= epoch);
        if role == Role::Primary && newest { Ok(self.run(position)) } else { Err(self.error(PoolErrorKind::NoPrimary)) }
    }

    /// What the watcher has last read, when it has read it from this very server.
    fn read_by_watcher(self, topology: &Topology) -> Option<Position> {
        let view = topology.view();
        let node = view.nodes().iter().find(|node| node.name() == self.node)?;
        let serves = matches!(node.state(), NodeState::Primary | NodeState::Replica | NodeState::Ejected);
        let position = node.applied().filter(|position| position.cluster() == self.backend.cluster)?;
        (serves && node.incarnation() == self.backend.incarnation).then_some(position)
    }

    async fn ask(self) -> Result<(Role, Position), PoolError> {
        match timeout(ASK_DEADLINE, self.backend.ask(self.client)).await {
            Ok(Ok(Some(reading))) => Ok((reading.role, reading.position)),
            Ok(Ok(None)) => Err(self.error(PoolErrorKind::Behind)),
            Ok(Err(error)) => Err(self.error(PoolErrorKind::Connect).with_source(error)),
            Err(late) => Err(self.error(PoolErrorKind::Down).with_source(late)),
        }
    }

    fn run(self, position: Position) -> Run {
        Run::new(self.node.clone(), self.backend.incarnation, position)
    }

    fn error(self, kind: PoolErrorKind) -> PoolError {
        PoolError::new(self.node.as_str(), kind)
    }
}
