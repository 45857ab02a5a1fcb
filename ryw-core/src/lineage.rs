//! How positions compare when failovers have forked the log.

use std::collections::BTreeMap;

use crate::{
    ClusterId, Epoch, Position,
    seeded::{Bug, is_on},
};

/// What is known of a cluster's epochs: which one is current, and where each forked from its parent.
///
/// A bare offset does not survive a failover: one write on the new primary pushes the log past the place of a write
/// that was lost, and a numeric comparison says "caught up" while the row is gone. A lineage compares along the tree
/// of epochs instead (the model is that of PostgreSQL's timelines, the partial order is defined in ARCHITECTURE.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    cluster: ClusterId,
    current: Epoch,
    forks: BTreeMap<Epoch, Fork>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fork {
    parent: Epoch,
    at: u64,
}

/// How a required position relates to the position that a node has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The node's history contains the position.
    Reached,
    /// The node's history may contain it later.
    NotYet,
    /// The node's history does not contain it and never will: a fork lies in between.
    Lost,
    /// The position belongs to another cluster, so this node says nothing about it.
    Foreign,
}

/// A fork that contradicts what a [`Lineage`] already knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineageError {
    /// An epoch must be younger than the epoch it forked from.
    #[error("epoch {epoch} can't fork from epoch {parent}: a child's number must be larger than its parent's")]
    NotAChild {
        /// The fork's own epoch.
        epoch: Epoch,
        /// The epoch named as its parent.
        parent: Epoch,
    },
    /// The same epoch was reported with two different origins; two histories are mixed up.
    #[error("epoch {epoch} is already known with another origin; are nodes of two clusters mixed up?")]
    Contradiction {
        /// The epoch in question.
        epoch: Epoch,
    },
}

impl Lineage {
    /// A cluster that is in epoch `current` and about whose earlier epochs nothing is known.
    #[must_use]
    pub const fn new(cluster: ClusterId, current: Epoch) -> Self {
        Self { cluster, current, forks: BTreeMap::new() }
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The newest epoch that is known to have a primary.
    #[must_use]
    pub const fn current(&self) -> Epoch {
        self.current
    }

    /// Where the current epoch began, as a place of its own. `None` when it is not known to have continued another one.
    #[must_use]
    pub fn beginning(&self) -> Option<Position> {
        let fork = self.forks.get(&self.current)?;
        Some(Position::new(self.cluster, self.current, fork.at))
    }

    /// The lineage after a failover: `epoch` forked from the current epoch at `offset` and is the current one now.
    ///
    /// # Errors
    /// As [`with_fork`](Self::with_fork).
    pub fn promoted(self, epoch: Epoch, offset: u64) -> Result<Self, LineageError> {
        let parent = self.current;
        let mut next = self.with_fork(epoch, parent, offset)?;
        next.current = epoch;
        Ok(next)
    }

    /// Adds what is known of one epoch: it continues `parent`'s log from `offset` on. Current stays what it is.
    ///
    /// # Errors
    /// [`LineageError::NotAChild`] if `epoch ≤ parent`; [`LineageError::Contradiction`] if `epoch` is known to have
    /// forked elsewhere.
    pub fn with_fork(mut self, epoch: Epoch, parent: Epoch, offset: u64) -> Result<Self, LineageError> {
        if epoch <= parent {
            return Err(LineageError::NotAChild { epoch, parent });
        }
        let fork = Fork { parent, at: offset };
        match self.forks.insert(epoch, fork) {
            Some(known) if known != fork => Err(LineageError::Contradiction { epoch }),
            _ => Ok(self),
        }
    }

    /// The same lineage with `epoch` as the current one, when it is newer; otherwise unchanged.
    #[must_use]
    pub fn advanced_to(mut self, epoch: Epoch) -> Self {
        self.current = self.current.max(epoch);
        self
    }

    /// How `required` relates to a node that has applied everything up to `applied`.
    ///
    /// An epoch that this lineage has never heard of is never an excuse to serve: the answer is
    /// [`Relation::NotYet`], because nothing proves that the write was lost and nothing proves that it is there.
    #[must_use]
    pub fn relate(&self, required: Position, applied: Position) -> Relation {
        if required.cluster() != applied.cluster() {
            return Relation::Foreign;
        }
        // One epoch is one history, wherever it began: nearly every position is of the current one.
        if required.epoch() == applied.epoch() || is_on(Bug::NumericTl) {
            return if required.offset() <= applied.offset() { Relation::Reached } else { Relation::NotYet };
        }
        let required = self.at_its_origin(required);
        let applied = self.at_its_origin(applied);
        match self.shared_history(required.epoch(), applied.epoch()) {
            // The node continues the epoch that wrote the position.
            Some(shared) if required.offset() > shared => Relation::Lost,
            Some(_) if required.offset() <= applied.offset() => Relation::Reached,
            Some(_) => Relation::NotYet,
            None => match self.shared_history(applied.epoch(), required.epoch()) {
                // The position was written after a fork that the node has not followed yet, or can't follow any more.
                Some(shared) if applied.offset() > shared => Relation::Lost,
                Some(_) => Relation::NotYet,
                None if self.reaches_root(required.epoch(), applied.epoch()) => Relation::Lost,
                None => Relation::NotYet,
            },
        }
    }

    /// Whether the current epoch's history does not contain `position` and never will.
    #[must_use]
    pub fn has_lost(&self, position: Position) -> bool {
        self.relate(position, Position::end_of(self.cluster, self.current)) == Relation::Lost
    }

    /// Whether the current epoch's history is known to contain everything up to `position`, now or once it is written.
    #[must_use]
    pub fn continues(&self, position: Position) -> bool {
        self.relate(position, Position::end_of(self.cluster, self.current)) == Relation::Reached
    }

    /// A place at or before the fork of its epoch was written by an ancestor: names that ancestor instead.
    fn at_its_origin(&self, mut position: Position) -> Position {
        while let Some(fork) = self.forks.get(&position.epoch())
            && position.offset() <= fork.at
        {
            position = position.in_epoch(fork.parent);
        }
        position
    }

    /// How much of `ancestor`'s log is part of `epoch`'s history; `None` when it is no ancestor as far as known.
    fn shared_history(&self, ancestor: Epoch, mut epoch: Epoch) -> Option<u64> {
        let mut shared = u64::MAX;
        while epoch != ancestor {
            let fork = self.forks.get(&epoch)?;
            shared = shared.min(fork.at);
            epoch = fork.parent;
        }
        Some(shared)
    }

    /// Whether both epochs descend from one known ancestor, so that "not an ancestor" is knowledge, not ignorance.
    fn reaches_root(&self, a: Epoch, b: Epoch) -> bool {
        self.root_of(a) == self.root_of(b)
    }

    fn root_of(&self, mut epoch: Epoch) -> Epoch {
        while let Some(fork) = self.forks.get(&epoch) {
            epoch = fork.parent;
        }
        epoch
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const CLUSTER: ClusterId = ClusterId::new(1);

    fn at(epoch: u32, offset: u64) -> Position {
        Position::new(CLUSTER, Epoch::new(epoch), offset)
    }

    /// 1 ── 2 at 100 ── 4 at 150
    ///  └── 3 at 120
    fn family() -> Lineage {
        Lineage::new(CLUSTER, Epoch::new(4))
            .with_fork(Epoch::new(2), Epoch::new(1), 100)
            .and_then(|l| l.with_fork(Epoch::new(3), Epoch::new(1), 120))
            .and_then(|l| l.with_fork(Epoch::new(4), Epoch::new(2), 150))
            .unwrap()
    }

    #[test]
    fn relates_along_the_tree() {
        use Relation::*;
        for (required, applied, expected, why) in [
            (at(1, 50), at(1, 50), Reached, "the very place"),
            (at(1, 51), at(1, 50), NotYet, "one byte ahead"),
            (at(1, 100), at(2, 100), Reached, "the fork itself is shared"),
            (at(1, 101), at(2, 900), Lost, "F22: numbers say caught up, the write is gone"),
            (at(1, 110), at(3, 130), Reached, "shared with the other branch"),
            (at(1, 130), at(3, 140), Lost, "cut off by the other branch as well"),
            (at(2, 150), at(4, 200), Reached, "up to a second fork"),
            (at(2, 151), at(4, 900), Lost, "beyond a second fork"),
            (at(1, 101), at(4, 900), Lost, "beyond the first fork of a chain"),
            (at(2, 130), at(1, 90), NotYet, "a standby that has yet to follow the promotion"),
            (at(2, 130), at(1, 110), Lost, "F23: a diverged standby never gets there"),
            (at(3, 130), at(2, 130), Lost, "siblings"),
            (at(2, 90), at(1, 95), Reached, "written before the fork, named by the younger epoch"),
            (at(9, 10), at(4, 900), NotYet, "an epoch nobody has heard of"),
            (at(4, 10), at(9, 900), NotYet, "a node in an epoch nobody has heard of"),
        ] {
            assert_eq!(family().relate(required, applied), expected, "{why}");
        }
        let foreign = Position::new(ClusterId::new(2), Epoch::new(1), 1);
        assert_eq!(family().relate(foreign, at(1, 50)), Foreign);
    }

    #[test]
    fn what_is_lost_is_said_of_the_current_epoch_only() {
        let foreign = Position::new(ClusterId::new(2), Epoch::new(1), 9000);
        for (position, expected, why) in [
            (at(1, 100), false, "at the fork"),
            (at(1, 101), true, "beyond it"),
            (at(3, 119), true, "of the other branch, whose log began where epoch 2 had long left"),
            (at(4, 9000), false, "not written yet, and may be"),
            (Position::end_of(CLUSTER, Epoch::new(4)), false, "the epoch goes on"),
            (Position::end_of(CLUSTER, Epoch::new(2)), true, "nobody knows where, and the epoch has ended"),
            (at(9, 10), false, "an epoch nobody has heard of is no proof"),
            (foreign, false, "another cluster's"),
        ] {
            assert_eq!(family().has_lost(position), expected, "{why}");
            let unknown = position.epoch() == Epoch::new(9) || position == foreign;
            assert_eq!(family().continues(position), !expected && !unknown, "{why}");
        }
    }

    #[test]
    fn an_epoch_begins_at_its_fork() {
        assert_eq!(family().beginning(), Some(at(4, 150)));
        assert_eq!(Lineage::new(CLUSTER, Epoch::new(4)).beginning(), None);
        let beginning = at(4, 150);
        assert!(family().continues(beginning) && family().advanced_to(Epoch::new(9)).current() == Epoch::new(9));
        assert_eq!(family().relate(beginning, at(1, 100)), Relation::NotYet);
        assert_eq!(family().relate(beginning, at(2, 150)), Relation::Reached, "it was shared until then");
    }

    #[test]
    fn refuses_contradictions() {
        let contradiction = family().with_fork(Epoch::new(2), Epoch::new(1), 101);
        assert_eq!(contradiction, Err(LineageError::Contradiction { epoch: Epoch::new(2) }));
        assert!(family().with_fork(Epoch::new(2), Epoch::new(1), 100).is_ok());
        assert!(family().with_fork(Epoch::new(2), Epoch::new(2), 1).is_err());
    }

    /// The definition, spelled out: a history is the set of (epoch that wrote it, offset) up to a position.
    fn history(forks: &[(u32, u64)], position: Position) -> BTreeSet<(u32, u64)> {
        let (mut epoch, mut end) = (position.epoch().get(), position.offset());
        let mut set = BTreeSet::new();
        loop {
            let (parent, from) = if epoch == 1 { (0, 0) } else { forks[epoch as usize - 2] };
            set.extend((from + 1..=end).map(|offset| (epoch, offset)));
            if epoch == 1 {
                return set;
            }
            (epoch, end) = (parent, end.min(from));
        }
    }

    proptest! {
        /// Random trees of up to five epochs, compared with sets that are built from the definition.
        #[test]
        fn agrees_with_histories_as_sets(
            shape in prop::collection::vec((any::<prop::sample::Index>(), 0u64..12), 4),
            mark in (1u32..=5, 1u64..14), node in (1u32..=5, 0u64..14),
        ) {
            let mut forks: Vec<(u32, u64)> = Vec::new();
            let mut lineage = Lineage::new(CLUSTER, Epoch::new(5));
            for (child, (parent, at)) in (2u32..).zip(&shape) {
                let parent = u32::try_from(parent.index(child as usize - 1)).unwrap() + 1;
                // A fork can't lie before its parent's own fork.
                let at = if parent == 1 { *at } else { forks[parent as usize - 2].1.max(*at) };
                forks.push((parent, at));
                lineage = lineage.with_fork(Epoch::new(child), Epoch::new(parent), at).unwrap();
            }
            let origin = |(epoch, offset): (u32, u64)| if epoch == 1 { offset } else { offset.max(forks[epoch as usize - 2].1) };
            let required = at(mark.0, origin(mark));
            let applied = at(node.0, origin(node));
            let needs = history(&forks, required);
            let has = history(&forks, applied);
            // What the node may still get: any continuation of its own epoch, or of an epoch that forks at or after it.
            let may_get = (1u32..=5).any(|epoch| {
                let future = history(&forks, at(epoch, 40));
                future.is_superset(&has) && future.is_superset(&needs)
            });
            let expected = if has.is_superset(&needs) { Relation::Reached } else if may_get { Relation::NotYet } else { Relation::Lost };
            prop_assert_eq!(lineage.relate(required, applied), expected, "forks {:?}", forks);

            // Lost is what no future of the current epoch contains.
            for current in 1u32..=5 {
                let lineage = Lineage { current: Epoch::new(current), ..lineage.clone() };
                let is_lost = !history(&forks, at(current, 40)).is_superset(&needs);
                prop_assert_eq!(lineage.has_lost(required), is_lost, "in epoch {}, forks {:?}", current, forks);
                prop_assert_eq!(lineage.continues(required), !is_lost, "in epoch {}, forks {:?}", current, forks);
                let end = Position::end_of(CLUSTER, required.epoch());
                let continues = history(&forks, at(current, 40)).is_superset(&history(&forks, at(mark.0, 40)));
                prop_assert_eq!(lineage.has_lost(end), !continues, "the end, in epoch {}, forks {:?}", current, forks);
            }
        }
    }
}
