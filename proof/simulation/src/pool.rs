//! A service's way to the database: watchers that report positions, and connections that follow a request's route.
//!
//! It does what the pools of `ryw-postgres` do: a connection knows its server, what its watcher has read holds only for
//! that server, and before a snapshot the server itself is asked where that is not enough.

use std::time::Duration;

use ryw_core::{
    Position, Reason,
    seeded::{Bug, is_on},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tower_ryw::{
    NodeName, Route, Run, RywContext, Topology,
    topology::{Incarnation, NodeState, Reading, Role, Watch},
};

use crate::{
    database::{Key, Refused, Shown},
    world::{World, now},
};

/// Between two readings of a node.
const PAUSE: Duration = Duration::from_millis(4);
const READ_DEADLINE: Duration = Duration::from_millis(15);

/// One service's pools.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    world: World,
    service: usize,
    busy: u8,
    topology: Topology,
    names: Vec<NodeName>,
}

/// An answer of the database.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) what: T,
    pub(crate) node: usize,
    pub(crate) epoch: u32,
}

/// What became of a write that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It did certainly not happen.
    Nothing,
    /// The session was told of a loss, and has to acknowledge it first.
    Lost,
    Unknown,
}

impl Pool {
    /// Pools, and a watcher for each node.
    pub(crate) fn start(world: &World, busy: u8, service: usize) -> Self {
        let topology = Topology::new();
        let nodes = world.with(|inner| inner.cluster.nodes.len());
        let names: Vec<NodeName> = (0..nodes).map(|node| format!("n{node}").into()).collect();
        let pool = Self { world: world.clone(), service, busy, topology, names };
        for (node, name) in pool.names.iter().enumerate() {
            let watch = pool.topology.add(name.clone()).pause(PAUSE);
            tokio::spawn(watch_node(pool.clone(), node, watch));
        }
        pool
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A round trip to a node, which says where it is. One that can't be reached does not answer.
    async fn ask(&self, node: usize) -> Result<(Reading, Position, u64), Refused> {
        sleep(self.world.millis(0..=1)).await;
        let answer = self.world.with(|inner| {
            if inner.cut_off.contains(&(self.service, node)) {
                return None;
            }
            let run = inner.cluster.nodes[node].run;
            Some(inner.cluster.read(node, now()).map(|(reading, position)| (reading, position, run)))
        });
        match answer {
            Some(answer) => {
                sleep(self.world.millis(0..=1)).await;
                answer
            }
            None => {
                sleep(READ_DEADLINE).await;
                Err(Refused::Down)
            }
        }
    }

    /// A connection to a node: which run of its server is behind it.
    async fn connect(&self, node: usize) -> Result<u64, Refused> {
        let (_, _, run) = self.ask(node).await?;
        Ok(run)
    }

    /// What the watcher has last read, when it has read it from this very server.
    fn watched(&self, node: usize, run: u64, is_able: impl Fn(NodeState) -> bool) -> Option<Position> {
        let view = self.topology.view();
        let known = view.node(&self.names[node])?;
        let is_same = known.incarnation() == Incarnation(run);
        known.applied().filter(|_| is_able(known.state()) && is_same)
    }

    fn find(&self, name: &NodeName) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Reads keys in one snapshot, from where the request is to be served.
    pub(crate) async fn read(&self, context: &RywContext, keys: &[Key]) -> Option<Answer<Vec<Shown>>> {
        let (mut route, mut reason) = (context.route(), context.reason());
        let mut failed = Vec::new();
        loop {
            let name = match &route {
                Route::Replica { node: Some(name) } => name.clone(),
                _ => return self.read_primary(context, keys, reason).await,
            };
            if let Some(answer) = self.read_replica(context, &name, reason, keys).await {
                return Some(answer);
            }
            failed.push(name);
            (route, reason) = context.without(&failed)?;
        }
    }

    async fn read_replica(
        &self,
        context: &RywContext,
        name: &NodeName,
        reason: Reason,
        keys: &[Key],
    ) -> Option<Answer<Vec<Shown>>> {
        let node = self.find(name)?;
        let run = self.connect(node).await.ok()?;
        let is_able = |state| matches!(state, NodeState::Replica | NodeState::Ejected);
        let known = self.watched(node, run, is_able).filter(|position| context.admits(*position));
        let position = match known {
            Some(position) => position,
            None => {
                let (_, position, answered) = self.ask(node).await.ok()?;
                let is_replica = self.world.with(|inner| inner.cluster.nodes[node].role == Role::Replica);
                Some(position).filter(|_| answered == run && is_replica && context.admits(position))?
            }
        };
        context.served_by(
            Route::Replica { node: Some(name.clone()) },
            reason,
            Some(Run::new(name.clone(), Incarnation(run), position)),
        );
        self.before_snapshot().await;
        let (node, run) = if is_on(Bug::ProbeOther) { self.another(node) } else { (node, run) };
        self.snapshot(node, run, keys)
    }

    /// Between a check and the snapshot that it is for, a handler may be busy with something else.
    async fn before_snapshot(&self) {
        let busy = if self.world.chance(self.busy) { 5..=20 } else { 0..=2 };
        sleep(self.world.millis(busy)).await;
    }

    /// Where an address leads that is balanced over several servers.
    fn another(&self, node: usize) -> (usize, u64) {
        self.world.with(|inner| {
            let other = (0..inner.cluster.nodes.len())
                .find(|other| *other != node && inner.cluster.nodes[*other].role == Role::Replica)
                .unwrap_or(node);
            (other, inner.cluster.nodes[other].run)
        })
    }

    fn snapshot(&self, node: usize, run: u64, keys: &[Key]) -> Option<Answer<Vec<Shown>>> {
        self.world.with(|inner| {
            if inner.cut_off.contains(&(self.service, node)) {
                return None;
            }
            let what = inner.cluster.snapshot(node, run, keys, now()).ok()?;
            Some(Answer { what, node, epoch: inner.cluster.epoch(node) })
        })
    }

    /// A connection to the primary that is known, admitted.
    async fn primary(&self, context: &RywContext, reason: Reason) -> Result<(usize, u64), Failed> {
        let name = self.topology.view().primary().map(|node| node.name().clone());
        let node = name.and_then(|name| self.find(&name)).ok_or(Failed::Nothing)?;
        let run = self.connect(node).await.map_err(|_| Failed::Nothing)?;
        let position = match self.watched(node, run, |state| state == NodeState::Primary) {
            Some(position) => position,
            None => {
                let (_, position, answered) = self.ask(node).await.map_err(|_| Failed::Nothing)?;
                let is_primary = self.world.with(|inner| inner.cluster.nodes[node].role == Role::Primary);
                let newest = self.topology.view().epoch().is_none_or(|epoch| position.epoch() >= epoch);
                Some(position).filter(|_| answered == run && is_primary && newest).ok_or(Failed::Nothing)?
            }
        };
        if context.may_write() {
            match context.refuses_write(position) {
                None => {}
                Some(Reason::Lost) => return Err(Failed::Lost),
                Some(_) => return Err(Failed::Nothing),
            }
        }
        let run_of = Run::new(self.names[node].clone(), Incarnation(run), position);
        context.served_by(Route::Primary, reason, Some(run_of));
        Ok((node, run))
    }

    async fn read_primary(&self, context: &RywContext, keys: &[Key], reason: Reason) -> Option<Answer<Vec<Shown>>> {
        let (node, run) = self.primary(context, reason).await.ok()?;
        self.before_snapshot().await;
        self.snapshot(node, run, keys)
    }

    /// Writes. What has been sent to the primary may commit although nobody waits for it any more.
    pub(crate) async fn write(&self, context: &RywContext, key: Key, value: u64) -> Result<Answer<u64>, Failed> {
        let (node, run) = self.primary(context, Reason::Write).await?;
        let (ended, has_ended) = watch::channel(());
        context.unfinished_until(move || async move {
            let mut has_ended = has_ended;
            while has_ended.changed().await.is_ok() {}
        });
        let (pool, stops) = (self.clone(), self.world.chance(50));
        let backend = tokio::spawn(async move {
            let _ended = ended;
            pool.commit(node, run, key, value).await
        });
        let _stop = stops.then(|| Stop(backend.abort_handle()));
        let version = backend.await.map_err(|_| Failed::Unknown)??;
        let epoch = self.world.with(|inner| inner.cluster.epoch(node));
        Ok(Answer { what: version, node, epoch })
    }

    async fn commit(&self, node: usize, run: u64, key: Key, value: u64) -> Result<u64, Failed> {
        sleep(self.world.millis(0..=4)).await;
        let reached = |inner: &crate::world::Inner| !inner.cut_off.contains(&(self.service, node));
        let written = self.world.with(|inner| match reached(inner) {
            true => inner.cluster.write(node, run, key, value, now()),
            false => Err(Refused::Down),
        });
        let end = written.map_err(|_| Failed::Nothing)?;
        loop {
            sleep(self.world.millis(0..=1)).await;
            let committed = self.world.with(|inner| inner.cluster.committed(node, run, end, now()));
            match committed.map_err(|_| Failed::Unknown)? {
                Some(version) if self.world.with(|inner| reached(inner)) => return Ok(version),
                Some(_) => return Err(Failed::Unknown),
                None => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

/// A statement that is cancelled with its request.
struct Stop(tokio::task::AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch_node(pool: Pool, node: usize, mut watch: Watch) {
    loop {
        let turn = watch.next().await;
        if let Ok(Ok((reading, ..))) = timeout(READ_DEADLINE, pool.ask(node)).await {
            turn.report(reading);
        }
    }
}
