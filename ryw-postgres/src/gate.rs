//! May this very connection serve this request?
//!
//! A decision is taken from what watchers have read. It holds for the server that they have read it from, and a
//! connection may lead to another: a replica that was replaced behind its address, an address that is balanced over
//! several. As long as the connection's server is the one that was read, nothing has to be asked.

use std::{error::Error, future::Future};

use ryw_core::Position;
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
        match self.asked(ask).await? {
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
        let (role, answer) = self.asked(ask).await?;
        let position = answer.position;
        let view = topology.view();
        let place = view.primary().and_then(NodeView::applied).map(|at| (at.cluster(), at.epoch()));
        let newest = place.is_none_or(|(cluster, epoch)| position.cluster() == cluster && position.epoch() >= epoch);
        if role == Role::Primary && newest { Ok(answer) } else { Err(self.error(PoolErrorKind::NoPrimary)) }
    }

    /// What the watcher has last read, when it has read it from this very server.
    fn read_by_watcher(self, topology: &Topology, is_able: impl Fn(NodeState) -> bool) -> Option<Admitted> {
        let server = self.server?;
        let view = topology.view();
        let node = view.nodes().iter().find(|node| node.name() == self.node)?;
        let position = node.applied().filter(|position| position.cluster() == server.cluster)?;
        (is_able(node.state()) && node.incarnation() == server.incarnation).then_some(Admitted { server, position })
    }

    fn answered(self) -> Option<Admitted> {
        Some(Admitted { server: self.server?, position: self.applied? })
    }

    async fn asked<E>(
        self,
        ask: impl Future<Output = Result<Option<NodeReading>, E>>,
    ) -> Result<(Role, Admitted), PoolError>
    where
        E: Error + Send + Sync + 'static,
    {
        match timeout(ASK_DEADLINE, ask).await {
            Ok(Ok(Some(reading))) => {
                Ok((reading.role, Admitted { server: reading.into(), position: reading.position }))
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
mod tests {
    use ryw_core::{ClusterId, Epoch};
    use tower_ryw::topology::{Incarnation, Reading};

    use super::*;

    #[tokio::test]
    async fn a_standby_is_not_admitted_as_primary() {
        let topology = Topology::new();
        let (mut a, mut b) = (topology.add("a"), topology.add("b"));
        let at = |e, o| Position::new(ClusterId::new(1), Epoch::new(e), o);
        a.begin().report(Reading::new(Role::Primary, at(1, 10)).incarnation(Incarnation(1)));
        b.begin().report(Reading::new(Role::Primary, at(2, 20)).incarnation(Incarnation(2)).fork(
            Epoch::new(2),
            Epoch::new(1),
            10,
        ));
        // a was restarted as a standby of b.
        a.begin().report(Reading::new(Role::Replica, at(2, 15)).incarnation(Incarnation(3)));
        let name = NodeName::from("a");
        let server = Some(Server { incarnation: Incarnation(3), cluster: ClusterId::new(1) });
        let link = Link { node: &name, server, applied: None };
        let answer = link.admit_write(&topology, async { Ok::<_, std::io::Error>(None) }).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}
