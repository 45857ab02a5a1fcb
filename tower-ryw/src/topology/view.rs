//! What is known of all nodes at one moment: an immutable picture that decisions are taken from.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ryw_core::{Acknowledged, ClusterId, Epoch, Lineage, Lost, Mark, Marks, Position, Relation};
use tokio::time::Instant;

use super::sampler::Sampler;

/// A node that came back gets its full share of reads after this time.
const SLOW_START: Duration = Duration::from_secs(10);

/// The name of a node. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

/// All nodes, as last read.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) lineage: Option<Lineage>,
    pub(crate) primary: Option<usize>,
    pub(crate) nodes: Vec<NodeView>,
    /// Where the primary was when this process first read it in this epoch.
    pub(crate) beginning: Option<Position>,
    /// When this process first heard of the current epoch.
    pub(crate) heard: Option<Heard>,
}

/// That an epoch is current.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    /// Another one was until then; otherwise it is the first that this process knows.
    pub(crate) is_change: bool,
}

/// One node, as last read.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub(crate) name: NodeName,
    pub(crate) state: NodeState,
    pub(crate) applied: Option<Position>,
    /// What its own snapshots are certain to show; differs from `applied` while commits wait for a synchronous standby.
    pub(crate) visible: Option<Position>,
    pub(crate) incarnation: Incarnation,
    pub(crate) synchronous: bool,
    /// When the last reading was asked for.
    pub(crate) asked_at: Option<Instant>,
    pub(crate) read_at: Option<Instant>,
    pub(crate) readings: u64,
    pub(crate) fresh_as_of: Option<Instant>,
    /// Since when it serves again, after it was out of service.
    pub(crate) back_since: Option<Instant>,
    pub(crate) load: Load,
    /// Those who want to know where it is.
    pub(super) sampler: Arc<Sampler>,
}

/// One run of a node's server. What was read from one run says nothing about another: behind the same address there may
/// be another machine, or an older copy of the data.
///
/// The number is the adapter's own; it has to differ between runs. `ryw-postgres` takes the time at which the server
/// was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

/// How many uses of a node are under way, and how many have failed in a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(Arc<Uses>);

#[derive(Debug, Default)]
struct Uses {
    under_way: AtomicUsize,
    failures: AtomicUsize,
}

/// One use of a node that is under way, see [`Topology::in_use`](super::Topology::in_use). Dropping it ends the use.
#[derive(Debug)]
#[must_use]
pub struct InUse(Load);

impl Load {
    pub(crate) fn begin(&self) -> InUse {
        self.0.under_way.fetch_add(1, Relaxed);
        InUse(self.clone())
    }

    /// Returns how many failures in a row that were.
    pub(super) fn fail(&self) -> usize {
        self.0.failures.fetch_add(1, Relaxed) + 1
    }

    pub(super) fn recover(&self) {
        // Mostly there is nothing to write.
        if self.0.failures.load(Relaxed) > 0 {
            self.0.failures.store(0, Relaxed);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// What a node may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// Nothing has been read from it yet.
    Unseen,
    /// It accepts writes, in the newest epoch.
    Primary,
    /// It applies the primary's log.
    Replica,
    /// Its last reading failed.
    Down,
    /// It can be read, but those who used it have failed; it gets another chance after a while.
    Ejected,
    /// It answers, but must not be used: it belongs to another cluster, still calls itself primary in an epoch that
    /// has ended, or shows what the primary's history does not contain.
    Fenced,
}

impl NodeState {
    /// The word for it in metrics and on pages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Fenced => "fenced",
        }
    }
}

impl View {
    /// All nodes, in the order in which they were added.
    #[must_use]
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// The primary, when one is known and answers.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeView> {
        self.primary.map(|index| &self.nodes[index])
    }

    /// The newest epoch that any node has shown.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.lineage.as_ref().map(Lineage::current)
    }

    /// How `marks` relate to what a node has applied. A node that has not been read has applied nothing.
    #[must_use]
    pub fn relation(&self, marks: &Marks, node: &NodeView) -> Relation {
        match (&self.lineage, node.applied) {
            (Some(lineage), Some(applied)) => self.relation_in(lineage, marks, applied),
            _ if marks.positions().is_empty() => Relation::Reached,
            _ => Relation::NotYet,
        }
    }

    /// How `marks` relate to whoever has applied everything up to `applied`.
    ///
    /// Another cluster's positions can't be compared with this one's. What of them this one has at all (it is the other one's
    /// successor) came with it, before it was first served from: whoever has what the primary had then has that too.
    pub(crate) fn relation_in(&self, lineage: &Lineage, marks: &Marks, applied: Position) -> Relation {
        match (marks.relation_to(lineage, applied), self.beginning) {
            (Relation::Foreign, Some(beginning)) => {
                let mut own = self.own(marks);
                own.join(&Marks::at(beginning));
                own.relation_to(lineage, applied)
            }
            (relation, _) => relation,
        }
    }

    /// The positions of this cluster, and whether something is unknown or on its way.
    pub(crate) fn own(&self, marks: &Marks) -> Marks {
        let is_own = |at: &&Position| self.lineage.as_ref().is_none_or(|lineage| at.cluster() == lineage.cluster());
        let flags = [(marks.is_unknown(), Mark::Unknown), (marks.is_pending(), Mark::Pending)];
        let flags = flags.into_iter().filter_map(|(is_so, mark)| is_so.then_some(mark));
        marks.positions().iter().filter(is_own).copied().map(Mark::At).chain(flags).collect()
    }

    /// What the current epoch's history does not contain and never will, when there is something among `marks`.
    #[must_use]
    pub fn lost(&self, marks: &Marks) -> Option<Lost> {
        // Nothing is lost of the epoch that goes on, and nearly all marks are of that.
        let is_current = |position: &Position| self.era() == Some((position.cluster(), position.epoch()));
        if marks.positions().iter().all(is_current) {
            return marks.lost();
        }
        let was = self.dead_positions(marks).map(|position| position.epoch()).min();
        let found = was.zip(self.lineage.as_ref()).map(|(was, lineage)| Lost { epoch: lineage.current(), was });
        marks.lost().max(found)
    }

    /// Whether the current epoch's history is known to contain all of `marks`, now or once it is written. Another cluster's
    /// are not its concern.
    pub(crate) fn continues(&self, marks: &Marks) -> bool {
        let Some(lineage) = &self.lineage else { return marks.positions().is_empty() };
        marks.positions().iter().all(|at| at.cluster() != lineage.cluster() || lineage.continues(*at))
    }

    /// Whether this process has not heard of a failover that the session has seen the result of.
    pub(crate) fn is_outdated(&self, marks: &Marks) -> bool {
        let current = self.lineage.as_ref().map(|lineage| (lineage.cluster(), lineage.current()));
        let newer = |position: &Position| current.is_some_and(|(c, e)| position.cluster() == c && position.epoch() > e);
        marks.positions().iter().any(newer)
    }

    /// Something may have been written, nobody knows whether and where. After a failover the epoch is named, so that nobody who
    /// has not heard of it answers for the primary before.
    pub(crate) fn unknown(&self) -> Marks {
        let epoch = self.lineage.as_ref().and_then(Lineage::beginning);
        [Mark::Unknown].into_iter().chain(epoch.map(Mark::At)).collect()
    }

    /// Where the current epoch began, when something of `marks` did not survive that and they don't name the epoch: whoever is told
    /// of the loss is not to be served any more by those who have not heard of the failover.
    pub(crate) fn untold(&self, marks: &Marks) -> Option<Position> {
        self.lost(marks)?;
        let began = self.lineage.as_ref()?.beginning()?;
        let branch = |position: &Position| (position.cluster(), position.epoch());
        let is_named = marks.positions().iter().any(|position| branch(position) == branch(&began));
        (!is_named).then_some(began)
    }

    /// Whether a failover that this process has heard of within this time may have lost something: then the primary's position
    /// stands for what survived, and not for what a session was promised. Of the one that came before its start nobody knows when
    /// that was.
    pub(crate) fn may_have_lost(&self, within: Duration) -> bool {
        let has_forked = self.lineage.as_ref().is_some_and(|lineage| lineage.beginning().is_some());
        self.heard.is_some_and(|heard| (heard.is_change || has_forked) && heard.at.elapsed() < within)
    }

    /// Those of `marks` that are lost and that an acknowledgement is about. What was lost after the epoch that it names is told apart.
    ///
    /// The bare word does not say: of several losses it is the newest that the marks tell from those after it, by a position of
    /// an epoch in which something was lost already.
    pub(crate) fn acknowledged(&self, marks: &Marks, known: Acknowledged) -> Marks {
        let Some(lineage) = &self.lineage else { return Marks::none() };
        // What was written after that epoch is on another branch than its end too, and nobody knew of it.
        let is_lost_in = |position: Position, epoch: Epoch| {
            position.epoch() < epoch
                && lineage.relate(position, Position::end_of(lineage.cluster(), epoch)) == Relation::Lost
        };
        let up_to = match known {
            Acknowledged::UpTo(epoch) => epoch,
            _ => {
                let has_lost = |epoch: &Epoch| self.dead_positions(marks).any(|position| is_lost_in(position, *epoch));
                let own = marks.positions().iter().filter(|position| position.cluster() == lineage.cluster());
                own.map(|position| position.epoch()).filter(has_lost).max().unwrap_or(lineage.current())
            }
        };
        let told = marks.lost().filter(|lost| lost.epoch <= up_to).map(Mark::Lost).into_iter();
        told.chain(self.dead_positions(marks).filter(|position| is_lost_in(*position, up_to)).map(Mark::At)).collect()
    }

    /// What the current epoch's history does not contain and never will.
    fn dead_positions(&self, marks: &Marks) -> impl Iterator<Item = Position> {
        let is_dead = |position: &&Position| self.lineage.as_ref().is_some_and(|lineage| lineage.has_lost(**position));
        marks.positions().iter().filter(is_dead).copied()
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The cluster, and the epoch that is current.
    pub(crate) fn era(&self) -> Option<(ClusterId, Epoch)> {
        self.lineage.as_ref().map(|lineage| (lineage.cluster(), lineage.current()))
    }

    pub(crate) fn replicas(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.state == NodeState::Replica)
    }
}

impl NodeView {
    /// A node that was not read yet.
    pub(crate) fn unseen(name: NodeName) -> Self {
        Self {
            name,
            state: NodeState::Unseen,
            applied: None,
            visible: None,
            incarnation: Incarnation::default(),
            synchronous: false,
            asked_at: None,
            read_at: None,
            readings: 0,
            fresh_as_of: None,
            back_since: None,
            load: Load::default(),
            sampler: Arc::default(),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// What the node may be used for.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        self.state
    }

    /// What it had applied when it was last read; on a primary, what it had written.
    #[must_use]
    pub const fn applied(&self) -> Option<Position> {
        self.applied
    }

    /// What its own snapshots are certain to show. On a primary with synchronous standbys this can be less than what
    /// it has written: a commit that waits for a standby may be visible there first.
    #[must_use]
    pub const fn visible(&self) -> Option<Position> {
        self.visible
    }

    /// Which run of its server was last read.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How many uses of it are under way in this process, as far as the data layer tells.
    #[must_use]
    pub fn load(&self) -> usize {
        self.load.0.under_way.load(Relaxed)
    }

    /// How much it has to do, for comparison with others: one that has just come back counts as busier than it is, so
    /// that its caches warm up before it gets its full share.
    pub(crate) fn strain(&self, now: impl Fn() -> Instant) -> u128 {
        const FULL: u128 = SLOW_START.as_millis();
        let back = self.back_since.map_or(FULL, |since| now().saturating_duration_since(since).as_millis());
        let warmth = back.clamp(FULL / 10, FULL);
        (self.load() as u128 + 1) * FULL * FULL / warmth
    }

    /// When it last answered.
    #[must_use]
    pub const fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// How often it has answered.
    #[must_use]
    pub const fn readings(&self) -> u64 {
        self.readings
    }

    /// It shows every write that had been acknowledged by then, by the clock of this process alone.
    #[must_use]
    pub const fn fresh_as_of(&self) -> Option<Instant> {
        self.fresh_as_of
    }
}

impl NodeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
