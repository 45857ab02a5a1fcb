//! Live knowledge about nodes: fed by watchers, read by decisions, waited on by requests.
//!
//! One watcher per node owns a [`Watch`] and reports readings into the topology. Nobody else queries a node for its
//! position: who needs one *newer than now* asks for a [`Sample`], and the watcher's next query answers all who
//! asked before it started. Decisions read the current [`View`] without a lock.

mod election;
mod history;
#[cfg(all(test, interleavings))]
mod interleavings;
mod reading;
mod sampler;
mod view;
mod waiters;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use ryw_core::{Lineage, Position, Relation};
use tokio::time::Instant;

pub use reading::{Reading, Role};
pub use sampler::Sample;
pub use view::{InUse, Incarnation, NodeName, NodeState, NodeView, View};
pub use waiters::WaitLimits;
pub(crate) use waiters::{Waiter, Who};
pub use watch::{Turn, Watch};

use election::{Reigns, elect};
use history::History;
use sampler::Asked;
use view::Heard;
use waiters::Waiters;

/// A replica whose users fail so many times in a row is taken out of service for a while.
const MAX_FAILURES: usize = 3;
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LAST_EJECTION: Duration = Duration::from_secs(30);

/// The nodes of one cluster. Cheap to clone; all clones are the same topology.
///
/// An adapter for a database adds its nodes and reports what it reads from them; [`ryw-postgres`] is one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use ryw_core::{ClusterId, Epoch, Position};
/// use tower_ryw::topology::{NodeState, Reading, Role, Topology};
///
/// let topology = Topology::new();
/// let mut watch = topology.add("p");
/// let position = Position::new(ClusterId::new(1), Epoch::new(1), 16);
/// watch.begin().report(Reading::new(Role::Primary, position));
/// assert_eq!(topology.view().primary().map(|node| node.state()), Some(NodeState::Primary));
/// # }
/// ```
///
/// [`ryw-postgres`]: https://docs.rs/ryw-postgres
#[derive(Clone)]
pub struct Topology(Arc<Inner>);

struct Inner {
    view: ArcSwap<View>,
    writer: Mutex<Writer>,
    waiters: Arc<Waiters>,
}

/// What only reports touch.
#[derive(Default)]
struct Writer {
    ejections: Vec<Ejection>,
    history: History,
    reigns: Reigns,
}

/// When a node gets its next chance, and how long it was out of service for that.
#[derive(Clone, Copy, Debug, Default)]
struct Ejection {
    until: Option<Instant>,
    length: Duration,
}

impl Topology {
    /// A topology without nodes, with the default [`WaitLimits`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(WaitLimits::new())
    }

    /// A topology without nodes, in which so many requests may wait for a replica.
    #[must_use]
    pub fn with_limits(limits: WaitLimits) -> Self {
        let waiters = Arc::new(Waiters::new(limits));
        Self(Arc::new(Inner { view: ArcSwap::default(), writer: Mutex::default(), waiters }))
    }

    /// Adds a node, as yet unseen. Whether it is the primary or a replica is for its readings to say.
    #[must_use]
    pub fn add(&self, name: impl Into<NodeName>) -> Watch {
        let mut writer = self.0.writer.lock();
        writer.ejections.push(Ejection::default());
        let mut view = View::clone(&self.0.view.load());
        let added = NodeView::unseen(name.into());
        let sampler = Arc::clone(&added.sampler);
        view.nodes.push(added);
        let node = view.nodes.len() - 1;
        self.0.view.store(Arc::new(view));
        Watch::new(self.clone(), node, sampler)
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> Guard<Arc<View>> {
        self.0.view.load()
    }

    /// The primary's position, read after this call: it contains everything that had been committed by now.
    #[must_use]
    pub fn sample_primary(&self) -> Sample {
        self.sample(Asked::Primary, |view| view.primary)
    }

    /// A node's position, read after this call: it contains everything that the node has shown by now.
    #[must_use]
    pub fn sample_node(&self, name: &NodeName) -> Sample {
        self.sample(Asked::Node, of_name(name))
    }

    /// As [`sample_node`](Self::sample_node), but only of this run of its server, and also when it must not be used
    /// any more: whatever it has shown, it has shown.
    pub(crate) fn sample_run(&self, name: &NodeName, run: Incarnation) -> Sample {
        self.sample(Asked::Run(run), of_name(name))
    }

    /// As [`sample_run`](Self::sample_run), of a primary: it contains what that run has committed by now.
    pub(crate) fn sample_commit(&self, name: &NodeName, run: Incarnation) -> Sample {
        self.sample(Asked::Commit(run), of_name(name))
    }

    /// Counts a use of a node for as long as the answer lives: reads go to whoever has less to do. `None` for a node
    /// that is not known here.
    #[must_use]
    pub fn in_use(&self, name: &NodeName) -> Option<InUse> {
        Some(self.view().node(name)?.load.begin())
    }

    /// A use of a node has failed because of the node. After three in a row it is out of service for a second, and
    /// longer each time, up to half a minute.
    pub fn failed(&self, name: &NodeName) {
        if self.view().node(name).is_none_or(|node| node.load.fail() < MAX_FAILURES) {
            return;
        }
        self.update(|view, writer| {
            let Some(index) = of_name(name)(view) else { return };
            let (node, ejection) = (&mut view.nodes[index], &mut writer.ejections[index]);
            if node.state == NodeState::Replica {
                node.load.recover();
                let length = (ejection.length * 2).clamp(FIRST_EJECTION, LAST_EJECTION);
                *ejection = Ejection { until: Some(Instant::now() + length), length };
                node.state = NodeState::Ejected;
                tracing::warn!(node = %node.name, for_ms = length.as_millis(), "replica is ejected: its users failed");
            }
        });
    }

    /// A use of a node has succeeded.
    pub fn succeeded(&self, name: &NodeName) {
        if let Some(node) = self.view().node(name) {
            node.load.recover();
        }
    }

    /// Since when a node that has applied everything up to `position` shows every write that had been acknowledged by
    /// then, by the clock of this process alone.
    pub(crate) fn fresh_as_of(&self, position: Position) -> Option<Instant> {
        let lineage = self.view().lineage.clone()?;
        self.0.writer.lock().history.fresh_as_of(&lineage, position)
    }

    /// How many requests are waiting for a replica.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiters.len()
    }

    /// How long it takes some replica to apply `offset`, if replicas stay as late as they were when last read. Zero
    /// when nothing is known.
    pub(crate) fn expected_wait(&self, offset: u64) -> Duration {
        let now = Instant::now();
        let written_at = self.0.writer.lock().history.reached_at(offset).unwrap_or(now);
        let view = self.view();
        let late = |node: &NodeView| Some(node.read_at?.saturating_duration_since(node.fresh_as_of?));
        let late = view.replicas().map(|node| late(node).unwrap_or_default()).min().unwrap_or_default();
        (written_at + late).saturating_duration_since(now)
    }

    fn sample(&self, of: Asked, which: impl FnOnce(&View) -> Option<usize>) -> Sample {
        let view = self.view();
        match which(&view).and_then(|node| view.nodes.get(node)) {
            Some(node) => node.sampler.sample(of),
            None => Sample::unavailable(),
        }
    }

    /// A place among the waiting, or `None` when there are too many. Replicas are read at once, and often.
    pub(crate) fn wait_for(&self, offset: u64, who: Who) -> Option<Waiter> {
        let waiter = self.0.waiters.join(offset, who)?;
        self.view().nodes.iter().for_each(|node| node.sampler.hurry.notify_one());
        Some(waiter)
    }

    /// A read has gone to the primary because no replica was known to be fresh enough: they are read again soon.
    pub(crate) fn missed(&self) {
        self.view().nodes.iter().for_each(|node| node.sampler.missed.notify_one());
    }

    fn update(&self, change: impl FnOnce(&mut View, &mut Writer)) {
        let reached = {
            let mut writer = self.0.writer.lock();
            let mut view = View::clone(&self.0.view.load());
            let before: Vec<_> = view.nodes.iter().map(|node| node.state).collect();
            let lineage = view.lineage.clone();
            let visible = |view: &View| view.primary().filter(|node| node.synchronous).and_then(|node| node.visible);
            let was_visible = visible(&view);
            change(&mut view, &mut writer);
            elect(&mut view);
            if let Some((asked, written)) = view.primary().and_then(|node| node.asked_at.zip(node.applied)) {
                writer.history.remember(asked, written);
                view.beginning = view.beginning.filter(|at| at.epoch() == written.epoch()).or(Some(written));
            }
            // A new epoch changes who has reached what, also where every node has kept its role.
            let epoch = |lineage: &Option<Lineage>| lineage.as_ref().map(Lineage::current);
            if epoch(&lineage) != epoch(&view.lineage) {
                view.heard = Some(Heard { at: Instant::now(), is_change: lineage.is_some() });
            }
            let same = lineage == view.lineage && before.iter().eq(view.nodes.iter().map(|node| &node.state));
            // The primary is waited for only where its commits wait for others.
            let primary = visible(&view).filter(|position| Some(*position) != was_visible);
            let applied = view.replicas().filter_map(|node| node.applied).chain(primary).map(Position::offset).max();
            self.0.view.store(Arc::new(view));
            if same { applied } else { None }
        };
        match reached {
            Some(offset) => self.0.waiters.reached(offset),
            None => self.0.waiters.all(),
        }
    }
}

fn of_name(name: &NodeName) -> impl FnOnce(&View) -> Option<usize> {
    move |view| view.nodes.iter().position(|node| node.name == *name)
}

/// Returns whether the node belongs to the cluster.
fn apply(view: &mut View, writer: &mut Writer, node: usize, started: Instant, reading: &Reading) -> bool {
    let Reading { role, position, incarnation, visible, forks } = reading;
    // The first primary that answers says which cluster this is.
    if view.lineage.is_none() && *role == Role::Primary {
        view.lineage = Some(Lineage::new(position.cluster(), position.epoch()));
    }
    let Some(lineage) = view.lineage.clone().filter(|lineage| lineage.cluster() == position.cluster()) else {
        let foreign = view.lineage.is_some();
        let node = &mut view.nodes[node];
        if foreign && node.state != NodeState::Fenced {
            tracing::error!(node = %node.name, cluster = %position.cluster(), "node of another cluster is fenced");
        }
        node.state = if foreign { NodeState::Fenced } else { NodeState::Unseen };
        node.applied = Some(*position);
        return false;
    };
    let contested = writer.reigns.is_contested(view, &lineage, node, reading);
    // Also by a replica: that it follows an epoch proves that the one before has ended.
    let before = lineage.current();
    let mut lineage = lineage.advanced_to(position.epoch());
    if lineage.current() != before {
        // Whoever was read as the primary may not have been it any more.
        writer.history.clear();
        view.nodes.iter_mut().for_each(|node| node.fresh_as_of = None);
    }
    for (epoch, parent, offset) in forks {
        match lineage.clone().with_fork(*epoch, *parent, *offset) {
            Ok(grown) => lineage = grown,
            // At every reading, so not a warning each time.
            Err(error) => tracing::debug!(node = %view.nodes[node].name, %error, "history is not believed"),
        }
    }
    let fresh_as_of = match role {
        Role::Primary => Some(started),
        Role::Replica => writer.history.fresh_as_of(&lineage, *position),
    };
    let ejected = writer.ejections[node].until.is_some_and(|until| started < until);
    let node = &mut view.nodes[node];
    let went_on = node.applied.is_none_or(|before| lineage.relate(before, *position) == Relation::Reached);
    let state = match role {
        Role::Primary if contested => NodeState::Fenced,
        Role::Primary => NodeState::Primary,
        Role::Replica if ejected => NodeState::Ejected,
        Role::Replica => NodeState::Replica,
    };
    if state == NodeState::Replica && matches!(node.state, NodeState::Down | NodeState::Ejected) {
        node.back_since = Some(started);
    }
    if node.incarnation != *incarnation {
        node.visible = None;
    }
    node.state = state;
    node.incarnation = *incarnation;
    node.synchronous = visible.is_some();
    node.applied = Some(*position);
    node.visible = visible.unwrap_or(Some(*position)).or(node.visible);
    node.asked_at = Some(started);
    node.read_at = Some(Instant::now());
    node.readings += 1;
    // Freshness is a fact about the past, and a reading adds to it; but not after a restart from an older place.
    node.fresh_as_of = if went_on { node.fresh_as_of.max(fresh_as_of) } else { fresh_as_of };
    view.lineage = Some(lineage);
    true
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology").field("view", &**self.view()).field("waiting", &self.waiting()).finish()
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Marks};

    use super::*;

    fn at(epoch: u32, offset: u64) -> Position {
        Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
    }

    fn pair() -> (Topology, Watch, Watch) {
        let topology = Topology::new();
        let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
        primary.begin().report(Reading::new(Role::Primary, at(1, 10)));
        replica.begin().report(Reading::new(Role::Replica, at(1, 5)));
        (topology, primary, replica)
    }

    fn states(topology: &Topology) -> Vec<NodeState> {
        topology.view().nodes().iter().map(NodeView::state).collect()
    }

    fn nobody() -> Who {
        Who { tenant: ryw_core::Tenant::default(), session: None }
    }

    async fn answer(sample: Sample) -> Option<Option<Position>> {
        tokio::time::timeout(Duration::ZERO, sample).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_answered_by_a_reading_that_starts_later() {
        let (topology, mut primary, _replica) = pair();
        let early = topology.sample_primary();
        let turn = primary.begin();
        let late = topology.sample_primary();
        turn.report(Reading::new(Role::Primary, at(1, 20)));
        assert_eq!(answer(early).await, Some(Some(at(1, 20))));
        // Its query had been sent before this was asked for: a commit in between could be missing.
        let mut late = Box::pin(late);
        assert!(tokio::time::timeout(Duration::ZERO, &mut late).await.is_err());
        primary.next().await.report(Reading::new(Role::Primary, at(1, 30)));
        assert_eq!(late.await, Some(at(1, 30)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_reading_says_so_to_everybody() {
        let (topology, mut primary, replica) = pair();
        let sample = topology.sample_primary();
        drop(primary.begin());
        assert_eq!(answer(sample).await, Some(None));
        assert_eq!(states(&topology), [NodeState::Down, NodeState::Replica]);
        assert_eq!(answer(topology.sample_primary()).await, Some(None), "there is none to ask");
        drop(replica);
        assert_eq!(states(&topology)[1], NodeState::Down);
        primary.begin().report(Reading::new(Role::Primary, at(1, 11)));
        assert_eq!(states(&topology)[0], NodeState::Primary, "and it may come back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_of_another_cluster_is_fenced() {
        let (topology, mut primary, mut replica) = pair();
        let foreign = Position::new(ClusterId::new(2), Epoch::new(1), 1000);
        for role in [Role::Replica, Role::Primary] {
            let sample = topology.sample_node(&"r1".into());
            replica.begin().report(Reading::new(role, foreign));
            assert_eq!(states(&topology), [NodeState::Primary, NodeState::Fenced]);
            assert_eq!(answer(sample).await, Some(None));
        }
        replica.begin().report(Reading::new(Role::Replica, at(1, 6)));
        assert_eq!(states(&topology)[1], NodeState::Replica);
        primary.begin().report(Reading::new(Role::Primary, foreign));
        assert_eq!(states(&topology)[0], NodeState::Fenced, "the first primary says which cluster it is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_not_used_before_a_primary_was_seen() {
        let topology = Topology::new();
        let mut replica = topology.add("r1");
        replica.begin().report(Reading::new(Role::Replica, at(1, 5)));
        assert_eq!(states(&topology), [NodeState::Unseen]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_epoch_has_the_primary() {
        let (topology, mut old, mut new) = pair();
        new.begin().report(Reading::new(Role::Primary, at(2, 12)).fork(Epoch::new(2), Epoch::new(1), 8));
        assert_eq!(states(&topology), [NodeState::Fenced, NodeState::Primary]);
        old.begin().report(Reading::new(Role::Primary, at(1, 900)));
        assert_eq!(states(&topology), [NodeState::Fenced, NodeState::Primary], "F5: it still answers");
        let view = topology.view();
        let relation = |offset| view.relation(&Marks::at(at(1, offset)), view.primary().unwrap());
        assert_eq!([relation(8), relation(9)], [Relation::Reached, Relation::Lost]);
        drop(view);
        old.begin().report(Reading::new(Role::Replica, at(2, 12)));
        assert_eq!(states(&topology), [NodeState::Replica, NodeState::Primary]);
    }

    #[tokio::test(start_paused = true)]
    async fn reports_wake_those_who_wait_and_a_change_wakes_all() {
        let (topology, _primary, mut replica) = pair();
        let wait = |offset| {
            let mut waiter = topology.wait_for(offset, nobody()).unwrap();
            tokio::spawn(async move { waiter.woken().await })
        };
        let (near, far) = (wait(8), wait(80));
        tokio::task::yield_now().await;
        replica.begin().report(Reading::new(Role::Replica, at(1, 8)));
        near.await.unwrap();
        assert!(!far.is_finished());
        assert_eq!(topology.waiting(), 1);
        drop(replica);
        far.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reading_is_due_at_once() {
        let mut watch = Topology::new().add("p").pause(Duration::from_secs(5));
        let started = Instant::now();
        watch.next().await.report(Reading::new(Role::Primary, at(1, 5)));
        assert_eq!(started.elapsed(), Duration::ZERO);
        watch.next().await.report(Reading::new(Role::Primary, at(1, 5)));
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn readings_hurry_while_somebody_waits() {
        let (topology, _primary, mut replica) = pair();
        let started = Instant::now();
        replica.next().await.report(Reading::new(Role::Replica, at(1, 5)));
        assert!(started.elapsed() >= Duration::from_millis(20), "nobody waits");
        let waiter = topology.wait_for(8, nobody());
        let started = Instant::now();
        for _ in 0..watch::BURST {
            replica.next().await.report(Reading::new(Role::Replica, at(1, 5)));
        }
        let burst = started.elapsed();
        assert_eq!(burst, Duration::ZERO, "without a pause");
        for _ in 0..5 {
            replica.next().await.report(Reading::new(Role::Replica, at(1, 5)));
        }
        let after = started.elapsed() - burst;
        assert!(
            (Duration::from_millis(4)..=Duration::from_millis(10)).contains(&after),
            "every millisecond: {after:?}"
        );
        drop(waiter);
        let started = Instant::now();
        replica.next().await.report(Reading::new(Role::Replica, at(1, 5)));
        assert!(started.elapsed() >= Duration::from_millis(20), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn freshness_and_expected_waits_come_from_the_primarys_past() {
        let topology = Topology::new();
        let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
        let ms = Duration::from_millis;
        let started = Instant::now();
        for offset in 1..=10 {
            primary.begin().report(Reading::new(Role::Primary, at(1, offset * 10)));
            tokio::time::advance(ms(10)).await;
        }
        // Now is 100 ms: the replica shows what had been written by 40 ms.
        replica.begin().report(Reading::new(Role::Replica, at(1, 55)));
        let since = topology.view().nodes()[1].fresh_as_of().unwrap();
        assert_eq!(since - started, ms(40));
        // Written at 80 ms and shown 60 ms late: in 40 ms.
        assert_eq!(topology.expected_wait(90), ms(40));
        assert_eq!(topology.expected_wait(20), Duration::ZERO);
        assert_eq!(topology.expected_wait(5000), ms(60));
    }

    #[tokio::test(start_paused = true)]
    async fn two_promotions_to_the_same_epoch_are_two_histories() {
        let topology = Topology::new();
        let (mut p, mut r1, mut r2) = (topology.add("p"), topology.add("r1"), topology.add("r2"));
        p.begin().report(Reading::new(Role::Primary, at(1, 100)));
        r2.begin().report(Reading::new(Role::Replica, at(1, 90)));
        drop(p.begin());
        r1.begin().report(Reading::new(Role::Primary, at(2, 150)).fork(Epoch::new(2), Epoch::new(1), 100));
        // A write on r1, acknowledged at 140. Then r1 dies, and r2, which never followed it, is promoted: also epoch 2.
        drop(r1.begin());
        r2.begin().report(Reading::new(Role::Primary, at(2, 200)).fork(Epoch::new(2), Epoch::new(1), 90));
        let view = topology.view();
        let mark = Marks::at(at(2, 140));
        let relation = view.relation(&mark, &view.nodes()[2]);
        assert_ne!(
            (view.nodes()[2].state(), relation),
            (NodeState::Primary, Relation::Reached),
            "a lost write looks as if it were there"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_primary_of_an_epoch() {
        let topology = Topology::new();
        let (mut p, mut r1, mut r2) = (topology.add("p"), topology.add("r1"), topology.add("r2"));
        p.begin().report(Reading::new(Role::Primary, at(1, 100)));
        r1.begin().report(Reading::new(Role::Primary, at(2, 150)).fork(Epoch::new(2), Epoch::new(1), 100));
        r2.begin().report(Reading::new(Role::Primary, at(2, 200)).fork(Epoch::new(2), Epoch::new(1), 90));
        let s = states(&topology);
        assert!(s.iter().filter(|s| **s == NodeState::Primary).count() <= 1, "{s:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_primary_does_not_make_replicas_fresh() {
        let topology = Topology::new();
        let (mut old, mut new, mut r) = (topology.add("old"), topology.add("new"), topology.add("r"));
        old.begin().report(Reading::new(Role::Primary, at(1, 100)));
        let forked = |o| Reading::new(Role::Primary, at(2, o)).fork(Epoch::new(2), Epoch::new(1), 100);
        let failover = Instant::now();
        for n in 0..100 {
            new.begin().report(forked(150 + n));
            tokio::time::advance(Duration::from_millis(10)).await;
            old.begin().report(Reading::new(Role::Primary, at(1, 100)));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        r.begin().report(Reading::new(Role::Replica, at(1, 100)));
        let view = topology.view();
        let since = view.nodes()[2].fresh_as_of();
        assert_eq!(view.nodes()[2].state(), NodeState::Replica);
        assert!(
            since.is_none_or(|s| s <= failover + Duration::from_millis(20)),
            "said to be {:?} old, is {:?}",
            since.map(|s| s.elapsed()),
            failover.elapsed()
        );
    }
}
