//! Marks in ten bytes: which history (a number for cluster and epoch), and how far into it.

use std::collections::HashMap;

use ryw_core::{ClusterId, Epoch, Marks, Position};

/// Histories that entries may share at a time. There is one, and another one after each failover until its entries expire.
const MAX_BRANCHES: usize = 64;

/// What an entry keeps of its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compact {
    /// Not a `u64`, which would make every entry a multiple of eight bytes.
    offset: [u8; 8],
    kind: u16,
}

const NONE: u16 = u16::MAX;
const SPILLED: u16 = u16::MAX - 1;

/// What the numbers in [`Compact`] stand for, and the marks that don't fit: of several histories, or a loss.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// With the number of entries in each; one without any is replaced by the next that is needed.
    known: Vec<((ClusterId, Epoch), u32)>,
    spilled: HashMap<u32, Marks>,
}

impl Compact {
    pub(super) const fn none() -> Self {
        Self { offset: [0; 8], kind: NONE }
    }
}

impl Branches {
    /// Puts the marks of the entry at `slot`, which has none, away: positions and loss only.
    pub(super) fn put(&mut self, slot: u32, marks: Marks) -> Compact {
        let kind = match (marks.positions(), marks.lost()) {
            ([], None) => return Compact::none(),
            ([position], None) => self.number(*position).map(|number| (number, position.offset())),
            _ => None,
        };
        match kind {
            Some((kind, offset)) => Compact { offset: offset.to_le_bytes(), kind },
            None => {
                self.spilled.insert(slot, marks);
                Compact { kind: SPILLED, ..Compact::none() }
            }
        }
    }

    /// Adds the marks of the entry at `slot` to `marks`. Returns whether one of them is open to the end of its epoch.
    pub(super) fn add_to(&self, marks: &mut Marks, slot: u32, compact: Compact) -> bool {
        match compact.kind {
            SPILLED => {
                let Some(spilled) = self.spilled.get(&slot) else { return false };
                marks.join(spilled);
                spilled.positions().iter().any(|position| position.is_end())
            }
            _ => {
                let Some(position) = self.position(compact) else { return false };
                marks.add(ryw_core::Mark::At(position));
                position.is_end()
            }
        }
    }

    /// Takes the marks of the entry at `slot`, which then has none.
    pub(super) fn take(&mut self, slot: u32, compact: &mut Compact) -> Marks {
        let taken = std::mem::replace(compact, Compact::none());
        if taken.kind == SPILLED {
            return self.spilled.remove(&slot).unwrap_or_default();
        }
        let Some(position) = self.position(taken) else { return Marks::none() };
        if let Some((_, entries)) = self.known.get_mut(usize::from(taken.kind)) {
            *entries -= 1;
        }
        Marks::at(position)
    }

    fn position(&self, compact: Compact) -> Option<Position> {
        let ((cluster, epoch), _) = self.known.get(usize::from(compact.kind))?;
        Some(Position::new(*cluster, *epoch, u64::from_le_bytes(compact.offset)))
    }

    /// The number of a position's history, for one more entry. `None` when there are too many.
    fn number(&mut self, position: Position) -> Option<u16> {
        let branch = (position.cluster(), position.epoch());
        let known = self.known.iter().position(|(known, _)| *known == branch);
        let number = match known.or_else(|| self.known.iter().position(|(_, entries)| *entries == 0)) {
            Some(number) => number,
            None if self.known.len() < MAX_BRANCHES => {
                self.known.push((branch, 0));
                self.known.len() - 1
            }
            None => return None,
        };
        let (kept, entries) = self.known.get_mut(number)?;
        *kept = branch;
        *entries += 1;
        u16::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{Lost, Mark};

    use super::*;

    fn at(epoch: u32, offset: u64) -> Position {
        Position::new(ClusterId::new(7), Epoch::new(epoch), offset)
    }

    #[test]
    fn what_is_put_comes_back() {
        let mut branches = Branches::default();
        let lost = Mark::Lost(Lost { epoch: Epoch::new(2), was: Epoch::new(1) });
        let cases = [
            Marks::none(),
            Marks::at(at(1, 0)),
            Marks::at(at(1, u64::MAX)),
            Marks::at(at(2, 0x0123_4567_89AB_CDEF)),
            [Mark::At(at(1, 5)), Mark::At(at(2, 6))].into_iter().collect(),
            [lost].into_iter().collect(),
        ];
        let mut kept: Vec<_> = (0..).zip(&cases).map(|(slot, marks)| branches.put(slot, marks.clone())).collect();
        for ((slot, marks), compact) in (0..).zip(&cases).zip(&mut kept) {
            let mut seen = Marks::none();
            assert_eq!(branches.add_to(&mut seen, slot, *compact), marks.positions().iter().any(|end| end.is_end()));
            assert_eq!(seen, *marks);
            assert_eq!(branches.take(slot, compact), *marks);
            assert_eq!(branches.take(slot, compact), Marks::none(), "it is taken");
        }
        assert!(branches.spilled.is_empty());
    }

    #[test]
    fn any_number_of_failovers_is_kept_apart_and_takes_bounded_room() {
        let mut branches = Branches::default();
        let offset = |epoch: u32| u64::from(epoch) + 10;
        let mut kept: Vec<_> = (0..200).map(|epoch| branches.put(epoch, Marks::at(at(epoch, offset(epoch))))).collect();
        assert_eq!((branches.known.len(), branches.spilled.len()), (MAX_BRANCHES, 200 - MAX_BRANCHES));
        for (slot, compact) in (0..).zip(&mut kept) {
            assert_eq!(branches.take(slot, compact), Marks::at(at(slot, offset(slot))));
        }
        for epoch in 1000..2000 {
            let mut compact = branches.put(0, Marks::at(at(epoch, 1)));
            assert_eq!(branches.take(0, &mut compact), Marks::at(at(epoch, 1)));
        }
        assert_eq!((branches.known.len(), branches.spilled.len()), (MAX_BRANCHES, 0), "numbers are used again");
    }
}
