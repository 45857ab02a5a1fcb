//! What a session must be able to see.

use std::fmt;

use smallvec::SmallVec;

use crate::{
    ClusterId, Epoch, Lineage, Lost, Position, Relation,
    seeded::{Bug, is_on},
    wire::MAX_POSITIONS,
};

/// One fact about what must be visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mark {
    /// Everything up to this position must be visible.
    At(Position),
    /// A write may still be on its way: it was attempted, and nobody knows yet whether it commits.
    Pending,
    /// Something was written or may have been forgotten, nobody knows where.
    Unknown,
    /// Something that had been acknowledged did not survive a failover.
    Lost(Lost),
}

/// Everything a session must be able to see: a join-semilattice of [`Mark`]s.
///
/// [`join`](Self::join) is commutative, associative and idempotent, and never loses a requirement, so marks may
/// arrive late, twice, or in any order. Per cluster and epoch the largest position is kept: positions of different
/// epochs are not merged into one, because the larger number may belong to a history that does not contain the
/// smaller one. The [end](Position::end_of) of an epoch is kept besides: a sample stands for it that may be older than a
/// position that came in the meantime.
///
/// At most [`wire::MAX_POSITIONS`](MAX_POSITIONS) positions are kept; more make the marks *unknown* as well, so that
/// what was left out is still covered.
///
/// ```
/// use ryw_core::{ClusterId, Epoch, Mark, Marks, Position};
/// let at = |offset| Position::new(ClusterId::new(1), Epoch::new(1), offset);
///
/// let mut marks = Marks::at(at(10));
/// marks.join(&Marks::at(at(7)));
/// assert_eq!(marks.positions(), [at(10)]);
/// ```
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Sorted by cluster and epoch, one each, and after it the end of that epoch where it is one of them.
    positions: SmallVec<[Position; 1]>,
    pending: bool,
    unknown: bool,
    lost: Option<Lost>,
}

impl Clone for Marks {
    fn clone(&self) -> Self {
        let Self { positions, pending, unknown, lost } = self;
        // As bytes, not one by one: every request clones its marks.
        Self { positions: SmallVec::from_slice(positions), pending: *pending, unknown: *unknown, lost: *lost }
    }
}

impl Marks {
    /// No requirement at all.
    #[must_use]
    pub fn none() -> Self {
        Self { positions: SmallVec::new(), pending: false, unknown: false, lost: None }
    }

    /// Everything up to `position`.
    #[must_use]
    pub fn at(position: Position) -> Self {
        Self { positions: SmallVec::from_buf([position]), ..Self::none() }
    }

    /// Something may have been forgotten.
    #[must_use]
    pub fn unknown() -> Self {
        Self { unknown: true, ..Self::none() }
    }

    /// A write whose outcome nobody knows yet.
    #[must_use]
    pub fn pending() -> Self {
        Self { pending: true, ..Self::none() }
    }

    /// Whether nothing at all is required.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.positions.is_empty() && !self.pending && !self.unknown && self.lost.is_none()
    }

    /// Whether something may have been forgotten.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Whether a write may still be on its way.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.pending
    }

    /// The acknowledged write that did not survive, when there is one that the session has not been told about.
    #[must_use]
    pub const fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// The required positions, at most one per cluster and epoch and the end of that, ordered by both.
    #[must_use]
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// Adds one fact.
    pub fn add(&mut self, mark: Mark) {
        match mark {
            Mark::At(position) => self.add_position(position),
            Mark::Pending => self.pending = true,
            Mark::Unknown => self.unknown = true,
            Mark::Lost(lost) => self.lost = self.lost.max(Some(lost)),
        }
    }

    /// Adds everything that `other` requires.
    pub fn join(&mut self, other: &Self) {
        if other.is_none() {
            return;
        }
        for position in &other.positions {
            self.add_position(*position);
        }
        self.pending |= other.pending;
        self.unknown |= other.unknown;
        self.lost = self.lost.max(other.lost);
    }

    /// Whether these marks already contain everything that `other` requires.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut joined = self.clone();
        joined.join(other);
        joined == *self
    }

    /// The same marks with *unknown* answered: whoever calls this has found out something that stands for it, and
    /// joins it.
    #[must_use]
    pub fn without_unknown(mut self) -> Self {
        self.unknown = false;
        self
    }

    /// What is required once `sample` is known, which was read on the primary after whatever is *unknown* here, and
    /// after whatever lies somewhere before the end of the sample's epoch: it stands for both.
    #[must_use]
    pub fn settled_by(mut self, sample: Position) -> Self {
        self.unknown = false;
        self.positions.retain(|position| !(position.is_end() && position.branch() == sample.branch()));
        let others = self.positions.iter().filter(|position| position.branch() != sample.branch()).count();
        if others >= MAX_POSITIONS {
            // One branch too many. It is not the sample that goes: it contains what survived of the others.
            self.positions.remove(0);
        }
        self.add_position(sample);
        self
    }

    /// Whether a write lies somewhere before the [end](Position::end_of) of `epoch`.
    #[must_use]
    pub fn is_open_in(&self, epoch: Epoch) -> bool {
        self.positions.iter().any(|position| position.is_end() && position.epoch() == epoch)
    }

    /// These marks without what `told` contains: its positions, earlier ones of the same epochs, and its loss. What
    /// is larger than that has come later and stays.
    #[must_use]
    pub fn without(mut self, told: &Self) -> Self {
        let is_told = |position: &Position| {
            is_on(Bug::ResetClobber)
                || told
                    .positions
                    .iter()
                    .any(|told| place(*told) == place(*position) && told.offset() >= position.offset())
        };
        self.positions.retain(|position| !is_told(position));
        self.lost = self.lost.filter(|lost| Some(*lost) > told.lost);
        self
    }

    /// How the required positions relate to a node that has applied everything up to `applied`: the worst of them
    /// all, in the order lost, foreign, not yet, reached. Pending and unknown are not positions and don't count here.
    #[must_use]
    pub fn relation_to(&self, lineage: &Lineage, applied: Position) -> Relation {
        let mut worst = Relation::Reached;
        for required in &self.positions {
            worst = match (worst, lineage.relate(*required, applied)) {
                (Relation::Lost, _) | (_, Relation::Lost) => return Relation::Lost,
                (Relation::Foreign, _) | (_, Relation::Foreign) => Relation::Foreign,
                (Relation::NotYet, _) | (_, Relation::NotYet) => Relation::NotYet,
                (Relation::Reached, Relation::Reached) => Relation::Reached,
            };
        }
        worst
    }

    fn add_position(&mut self, position: Position) {
        if is_on(Bug::LexiMerge) && self.is_of_an_older_branch(position) {
            return;
        }
        if self.positions.is_empty() {
            // Nearly always, and a search costs as much as all the rest of a join.
            self.positions = SmallVec::from_buf([position]);
            return;
        }
        match self.positions.binary_search_by_key(&place(position), |known| place(*known)) {
            Ok(found) => {
                let known = &mut self.positions[found];
                let larger = if is_on(Bug::NoMax) { 0 } else { known.offset() };
                *known = Position::new(known.cluster(), known.epoch(), position.offset().max(larger));
            }
            Err(slot) => {
                self.positions.insert(slot, position);
                if self.positions.len() > MAX_POSITIONS {
                    // The smallest branch goes, whatever the order of arrival: this keeps the join associative.
                    self.positions.remove(0);
                    self.unknown = true;
                }
            }
        }
    }
}

impl Marks {
    /// For a seeded bug: forgets what is of older branches than `position`, and tells whether that is of one itself.
    fn is_of_an_older_branch(&mut self, position: Position) -> bool {
        self.positions.retain(|known| known.branch() >= position.branch());
        self.positions.iter().any(|known| known.branch() > position.branch())
    }
}

/// What there is one of: the end of an epoch is not merged with the places in it.
const fn place(position: Position) -> ((ClusterId, Epoch), bool) {
    (position.branch(), position.is_end())
}

impl From<Position> for Marks {
    fn from(position: Position) -> Self {
        Self::at(position)
    }
}

impl FromIterator<Mark> for Marks {
    fn from_iter<I: IntoIterator<Item = Mark>>(marks: I) -> Self {
        let mut joined = Self::none();
        marks.into_iter().for_each(|mark| joined.add(mark));
        joined
    }
}

/// For people: `none`, or for example `7@1/64 pending`.
impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        let mut separator = "";
        for position in &self.positions {
            write!(f, "{separator}{position:?}")?;
            separator = " ";
        }
        for (is_so, word) in [(self.pending, "pending"), (self.unknown, "unknown"), (self.lost.is_some(), "lost")] {
            if is_so {
                write!(f, "{separator}{word}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some of them are ends of epochs.
    fn position() -> impl Strategy<Value = Position> {
        let offset = prop_oneof![6 => 0u64..9, 1 => Just(u64::MAX)];
        (0u64..4, 0u32..8, offset).prop_map(|(c, e, o)| Position::new(ClusterId::new(c), Epoch::new(e), o))
    }

    fn mark() -> impl Strategy<Value = Mark> {
        prop_oneof![
            8 => position().prop_map(Mark::At),
            1 => Just(Mark::Pending),
            1 => Just(Mark::Unknown),
            1 => (0u32..4, 0u32..4).prop_map(|(e, w)| Mark::Lost(Lost { epoch: Epoch::new(e), was: Epoch::new(w) })),
        ]
    }

    /// Up to 40 facts over 32 branches, so that the cap on positions is hit as well.
    fn marks() -> impl Strategy<Value = Marks> {
        prop::collection::vec(mark(), 0..40).prop_map(Marks::from_iter)
    }

    /// Found by the simulation (seed 291): the sample had been taken before the write, and came after it.
    #[test]
    fn an_early_sample_that_stands_for_an_open_end_does_not_stand_for_what_was_joined_since() {
        let at = |offset| Position::new(ClusterId::new(1), Epoch::new(1), offset);
        let open = Marks::at(Position::end_of(ClusterId::new(1), Epoch::new(1)));
        let both = joined(&open, &Marks::at(at(20)));
        assert!(!open.covers(&Marks::at(at(20))) && both.is_open_in(Epoch::new(1)));
        assert_eq!(both.settled_by(at(10)), Marks::at(at(20)));
    }

    fn joined(a: &Marks, b: &Marks) -> Marks {
        let mut joined = a.clone();
        joined.join(b);
        joined
    }

    proptest! {
        #[test]
        fn join_is_commutative(a in marks(), b in marks()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        }

        #[test]
        fn join_is_associative(a in marks(), b in marks(), c in marks()) {
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        }

        #[test]
        fn join_is_idempotent(a in marks()) {
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert_eq!(joined(&a, &Marks::none()), a);
        }

        #[test]
        fn join_never_forgets(a in marks(), b in marks()) {
            let both = joined(&a, &b);
            prop_assert!(both.covers(&a) && both.covers(&b));
            for position in a.positions().iter().chain(b.positions()) {
                let kept = both.positions().iter().find(|kept| place(**kept) == place(*position));
                prop_assert!(kept.map_or(both.is_unknown(), |kept| kept.offset() >= position.offset()));
            }
        }

        #[test]
        fn positions_stay_bounded_sorted_and_unique(a in marks(), b in marks()) {
            let both = joined(&a, &b);
            prop_assert!(both.positions().len() <= MAX_POSITIONS);
            prop_assert!(both.positions().windows(2).all(|pair| place(pair[0]) < place(pair[1])));
        }

        /// Said once more, in other words: position by position, and nothing else changes.
        #[test]
        fn without_takes_exactly_what_was_told(marks in marks(), told in marks()) {
            let left = marks.clone().without(&told);
            for position in marks.positions() {
                let largest_told = told.positions().iter().find(|told| place(**told) == place(*position));
                let is_told = largest_told.is_some_and(|told| told.offset() >= position.offset());
                prop_assert_eq!(left.positions().contains(position), !is_told, "{:?}", position);
            }
            prop_assert!(left.positions().iter().all(|position| marks.positions().contains(position)));
            let expected = if marks.lost() > told.lost() { marks.lost() } else { None };
            prop_assert_eq!(left.lost(), expected);
            prop_assert_eq!((left.is_unknown(), left.is_pending()), (marks.is_unknown(), marks.is_pending()));
        }

        #[test]
        fn an_answered_unknown_is_all_that_is_taken_out(marks in marks()) {
            let left = marks.clone().without_unknown();
            prop_assert!(!left.is_unknown());
            prop_assert_eq!(left.positions(), marks.positions());
            prop_assert_eq!((left.is_pending(), left.lost()), (marks.is_pending(), marks.lost()));
        }

        #[test]
        fn what_was_told_can_be_forgotten_and_comes_back(marks in marks(), told in marks()) {
            prop_assert!(marks.clone().without(&marks).positions().is_empty());
            prop_assert_eq!(marks.clone().without(&Marks::none()), marks.clone());
            // Told again, it is there again: nothing of either is dropped on the way.
            let again = joined(&marks.clone().without(&told), &told);
            prop_assert!(again.covers(&marks.without_unknown()) || again.positions().len() == MAX_POSITIONS);
        }

        #[test]
        fn a_sample_settles_the_unknown_and_the_end_of_its_own_epoch(marks in marks(), sample in position()) {
            prop_assume!(!sample.is_end());
            let settled = marks.clone().settled_by(sample);
            prop_assert!(!settled.is_unknown());
            prop_assert_eq!((settled.is_pending(), settled.lost()), (marks.is_pending(), marks.lost()));
            let kept = settled.positions().iter().find(|kept| kept.branch() == sample.branch());
            prop_assert!(kept.is_some_and(|kept| kept.offset() >= sample.offset() && !kept.is_end()), "the sample counts");
            for position in marks.positions().iter().filter(|position| position.branch() != sample.branch()) {
                let dropped = !settled.positions().contains(position);
                let no_room = marks.positions().len() == MAX_POSITIONS;
                prop_assert!(!dropped || no_room, "{:?} is not the sample's to settle", position);
            }
            prop_assert!(settled.positions().len() <= MAX_POSITIONS);
        }

        #[test]
        fn open_is_what_ends_an_epoch(marks in marks(), epoch in 0u32..8) {
            let ends = marks.positions().iter().filter(|position| position.offset() == u64::MAX);
            let expected = ends.clone().any(|position| position.epoch().get() == epoch);
            prop_assert_eq!(marks.is_open_in(Epoch::new(epoch)), expected);
        }
    }

    #[test]
    fn each_fact_says_itself_and_nothing_else() {
        let at = Position::new(ClusterId::new(1), Epoch::new(1), 7);
        let lost = Lost { epoch: Epoch::new(2), was: Epoch::new(1) };
        let told = Marks::from_iter([Mark::Lost(lost)]);
        assert_eq!(Marks::none(), Marks::default());
        for (marks, positions, pending, unknown, expected_loss) in [
            (Marks::none(), &[][..], false, false, None),
            (Marks::at(at), &[at], false, false, None),
            (Marks::from(at), &[at], false, false, None),
            (Marks::pending(), &[], true, false, None),
            (Marks::unknown(), &[], false, true, None),
            (Marks::from_iter([Mark::Pending]), &[], true, false, None),
            (Marks::from_iter([Mark::Unknown]), &[], false, true, None),
            (told.clone(), &[], false, false, Some(lost)),
        ] {
            assert_eq!(marks.positions(), positions, "{marks}");
            assert_eq!(
                (marks.is_pending(), marks.is_unknown(), marks.lost()),
                (pending, unknown, expected_loss),
                "{marks}"
            );
            assert_eq!(marks.is_none(), marks == Marks::none(), "{marks}");
            // A join keeps it, whichever side it is on, and only it.
            for other in [Marks::none(), marks.clone()] {
                assert!(joined(&marks, &other) == marks && joined(&other, &marks) == marks, "{marks}");
            }
        }
        // Of two losses the newer one is told.
        let newer = Marks::from_iter([Mark::Lost(Lost { epoch: Epoch::new(3), was: Epoch::new(1) })]);
        assert!(joined(&told, &newer) == newer && joined(&newer, &told) == newer);
    }

    #[test]
    fn an_end_is_above_every_place_of_its_epoch_and_below_no_sample() {
        let cluster = ClusterId::new(1);
        let end = Position::end_of(cluster, Epoch::new(1));
        assert!(end.is_end() && !Position::new(cluster, Epoch::new(1), u64::MAX - 1).is_end());
        let mut marks = Marks::at(Position::new(cluster, Epoch::new(1), 7));
        marks.join(&Marks::at(end));
        marks.join(&Marks::at(Position::new(cluster, Epoch::new(1), 9)));
        let last = Position::new(cluster, Epoch::new(1), 9);
        assert_eq!(marks.positions(), [last, end], "a later position does not stand for it, whoever joins it");
        assert!(marks.is_open_in(Epoch::new(1)) && !marks.is_open_in(Epoch::new(2)));
        // Only a sample that was asked for does, and only one of the same epoch.
        let of = |epoch| Position::new(cluster, Epoch::new(epoch), 20);
        assert_eq!(marks.clone().settled_by(of(1)).positions(), [of(1)]);
        assert_eq!(marks.settled_by(of(2)).positions(), [last, end, of(2)]);
    }

    #[test]
    fn a_sample_is_not_the_one_that_is_left_out() {
        let of = |cluster| Position::new(ClusterId::new(cluster), Epoch::new(1), 5);
        let full: Marks = (2..).take(MAX_POSITIONS).map(of).map(Mark::At).collect();
        assert!(full.settled_by(of(1)).positions().contains(&of(1)));
    }

    #[test]
    fn an_epoch_does_not_swallow_another() {
        let cluster = ClusterId::new(1);
        let lost = Position::new(cluster, Epoch::new(1), 120);
        let later = Position::new(cluster, Epoch::new(2), 900);
        let marks: Marks = [Mark::At(lost), Mark::At(later)].into_iter().collect();

        let lineage = Lineage::new(cluster, Epoch::new(1)).promoted(Epoch::new(2), 100).unwrap();
        let applied = Position::new(cluster, Epoch::new(2), 1000);
        assert_eq!(marks.relation_to(&lineage, applied), Relation::Lost, "F35: a later write must not hide the loss");
    }

    #[test]
    fn the_worst_relation_wins() {
        let cluster = ClusterId::new(1);
        let at = |offset| Position::new(cluster, Epoch::new(1), offset);
        let foreign = Position::new(ClusterId::new(2), Epoch::new(1), 1);
        let lineage = Lineage::new(cluster, Epoch::new(1));
        for (marks, expected) in [
            (vec![], Relation::Reached),
            (vec![at(10)], Relation::Reached),
            (vec![at(11)], Relation::NotYet),
            (vec![at(10), foreign], Relation::Foreign),
            (vec![at(11), foreign], Relation::Foreign),
        ] {
            let marks: Marks = marks.into_iter().map(Mark::At).collect();
            assert_eq!(marks.relation_to(&lineage, at(10)), expected, "{marks:?}");
        }
    }
}
