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
mod tests {
    use ryw_core::ClusterId;
    use tower_ryw::topology::{Incarnation, Reading};

    use super::*;

    /// A server that the watcher has not read answers, and has no more than a lower bound of its timeline.
    #[tokio::test]
    async fn a_lower_bound_of_the_timeline_admits_nobody_where_a_newer_one_is_known() {
        let at = |epoch, offset| Position::new(ClusterId::new(1), Epoch::new(epoch), offset);
        let (name, run) = (NodeName::from("r1"), Incarnation(7));
        let topology = Topology::new();
        let (mut primary, mut watched) = (topology.add("p"), topology.add("r1"));
        let asked = async |run, epoch_is_certain| {
            let (role, incarnation) = (Role::Replica, run);
            let answer = NodeReading { role, position: at(1, 50), incarnation, epoch_is_certain };
            let link = Link { node: &name, server: None, applied: None };
            let asked = link.asked(&topology, async { Ok::<_, std::io::Error>(Some(answer)) }).await;
            asked.ok().map(|(_, admitted)| admitted.position)
        };
        primary.begin().report(Reading::new(Role::Primary, at(1, 60)));
        assert_eq!(asked(run, false).await, Some(at(1, 50)));
        primary.begin().report(Reading::new(Role::Primary, at(2, 60)).fork(Epoch::new(2), Epoch::new(1), 10));
        assert_eq!(asked(run, false).await, None);
        assert_eq!(asked(run, true).await, Some(at(1, 50)), "it has not followed");
        watched.begin().report(Reading::new(Role::Replica, at(2, 40)).incarnation(run));
        assert_eq!(asked(run, false).await, Some(at(2, 50)), "the same run has shown more");
        assert_eq!(asked(Incarnation(8), false).await, None);
    }

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
