//! Marks in ten bytes: which history (a number for cluster and epoch), and how far into it.

use std::collections::HashMap;

use ryw_core::{Marks, Position};

use super::words::BranchWords;

/// Histories that entries may share at a time. There is one, and another one after each failover until its entries expire.
const MAX_BRANCHES: usize = 64;

/// What an entry keeps of its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compact {
    pub(super) offset: u64,
    /// The number of a history, or that there is none, or that the marks are elsewhere.
    pub(super) kind: u16,
}

const NONE: u16 = u16::MAX;
const SPILLED: u16 = u16::MAX - 1;

/// What the numbers in [`Compact`] stand for.
#[derive(Debug)]
pub(super) struct Histories([BranchWords; MAX_BRANCHES]);

/// How many entries there are of each, and the marks that don't fit: of several histories, or a loss.
#[derive(Debug)]
pub(super) struct Branches {
    /// One without any is replaced by the next that is needed.
    entries: [u32; MAX_BRANCHES],
    spilled: HashMap<u32, Marks>,
}

impl Compact {
    pub(super) const fn none() -> Self {
        Self { offset: 0, kind: NONE }
    }

    /// Whether its marks are in [`Branches`].
    pub(super) const fn is_spilled(self) -> bool {
        self.kind == SPILLED
    }
}

impl Histories {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| BranchWords::default()))
    }

    /// What `compact` stands for. `None` where it has no position of its own.
    pub(super) fn position(&self, compact: Compact) -> Option<Position> {
        let (cluster, epoch) = self.0.get(usize::from(compact.kind))?.get();
        Some(Position::new(cluster, epoch, compact.offset))
    }
}

impl Branches {
    pub(super) fn new() -> Self {
        Self { entries: [0; MAX_BRANCHES], spilled: HashMap::new() }
    }

    /// Puts the marks of the entry at `slot`, which has none, away: positions and loss only.
    pub(super) fn put(&mut self, histories: &Histories, slot: u32, marks: Marks) -> Compact {
        let number = match (marks.positions(), marks.lost()) {
            ([], None) => return Compact::none(),
            ([position], None) => {
                self.number(histories, *position).map(|kind| Compact { offset: position.offset(), kind })
            }
            _ => None,
        };
        number.unwrap_or_else(|| {
            self.spilled.insert(slot, marks);
            Compact { kind: SPILLED, ..Compact::none() }
        })
    }

    /// The marks of the entry at `slot`, where it [is spilled](Compact::is_spilled).
    pub(super) fn spilled(&self, slot: u32) -> Option<&Marks> {
        self.spilled.get(&slot)
    }

    /// Takes the marks of the entry at `slot`, which then has none.
    pub(super) fn take(&mut self, histories: &Histories, slot: u32, compact: Compact) -> Marks {
        if compact.is_spilled() {
            return self.spilled.remove(&slot).unwrap_or_default();
        }
        let Some(position) = histories.position(compact) else { return Marks::none() };
        if let Some(entries) = self.entries.get_mut(usize::from(compact.kind)) {
            *entries -= 1;
        }
        Marks::at(position)
    }

    /// The number of a position's history, for one more entry. `None` when there are too many.
    fn number(&mut self, histories: &Histories, position: Position) -> Option<u16> {
        let branch = (position.cluster(), position.epoch());
        let is_known = |(entries, history): (&u32, &BranchWords)| *entries > 0 && history.get() == branch;
        let known = self.entries.iter().zip(&histories.0).position(is_known);
        let number = known.or_else(|| self.entries.iter().position(|entries| *entries == 0))?;
        histories.0.get(number)?.set(branch);
        *self.entries.get_mut(number)? += 1;
        u16::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Lost, Mark};

    use super::*;

    fn at(epoch: u32, offset: u64) -> Position {
        Position::new(ClusterId::new(7), Epoch::new(epoch), offset)
    }

    #[test]
    fn what_is_put_comes_back() {
        let (histories, mut branches) = (Histories::new(), Branches::new());
        let lost = Mark::Lost(Lost { epoch: Epoch::new(2), was: Epoch::new(1) });
        let cases = [
            Marks::none(),
            Marks::at(at(1, 0)),
            Marks::at(at(1, u64::MAX)),
            Marks::at(at(2, 0x0123_4567_89AB_CDEF)),
            [Mark::At(at(1, 5)), Mark::At(at(2, 6))].into_iter().collect(),
            [lost].into_iter().collect(),
        ];
        let kept: Vec<_> =
            (0..).zip(&cases).map(|(slot, marks)| branches.put(&histories, slot, marks.clone())).collect();
        assert_eq!(kept.iter().filter(|compact| compact.is_spilled()).count(), 2);
        for ((slot, marks), compact) in (0..).zip(&cases).zip(kept) {
            if compact.is_spilled() {
                assert_eq!(branches.spilled(slot), Some(marks));
            } else {
                assert_eq!(histories.position(compact).as_slice(), marks.positions());
            }
            assert_eq!(branches.take(&histories, slot, compact), *marks);
        }
        assert_eq!((branches.spilled.len(), branches.entries), (0, [0; MAX_BRANCHES]), "nothing is left");
    }

    #[test]
    fn any_number_of_failovers_is_kept_apart_and_takes_bounded_room() {
        let (histories, mut branches) = (Histories::new(), Branches::new());
        let marks = |epoch: u32| Marks::at(at(epoch, u64::from(epoch) + 10));
        let kept: Vec<_> = (0..200).map(|epoch| branches.put(&histories, epoch, marks(epoch))).collect();
        assert_eq!(branches.spilled.len(), 200 - MAX_BRANCHES);
        for (slot, compact) in (0..).zip(kept) {
            assert_eq!(branches.take(&histories, slot, compact), marks(slot));
        }
        for epoch in 1000..2000 {
            let compact = branches.put(&histories, 0, marks(epoch));
            assert!(!compact.is_spilled(), "numbers are used again");
            assert_eq!(branches.take(&histories, 0, compact), marks(epoch));
        }
    }
}
