//! Positions and marks as bytes, for stores that keep them outside of this process.
//!
//! ```text
//! position  cluster u64 · epoch u32 · offset u64
//! marks     flags u8 · [lost: epoch u32, was u32] · position*
//! ```
//!
//! All numbers are big-endian.

use crate::{ClusterId, Epoch, Lost, Mark, Marks, Position};

const UNKNOWN: u8 = 1;
const PENDING: u8 = 2;
const LOST: u8 = 4;

/// Bytes that are no marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the bytes are no marks: they were damaged, or written by something else")]
pub struct MalformedMarks;

impl Position {
    /// How many bytes a position takes.
    pub const LEN: usize = 20;

    /// Cluster, epoch and offset, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.cluster().get().to_be_bytes());
        bytes[8..12].copy_from_slice(&self.epoch().get().to_be_bytes());
        bytes[12..].copy_from_slice(&self.offset().to_be_bytes());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) has made.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        // Twenty bytes are all positions there are, so nothing can be wrong with them.
        let number = |range: std::ops::Range<usize>| {
            bytes[range].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let epoch = u32::try_from(number(8..12)).unwrap_or(u32::MAX);
        Self::new(ClusterId::new(number(0..8)), Epoch::new(epoch), number(12..20))
    }
}

impl Marks {
    /// These marks as bytes, which [`from_bytes`](Self::from_bytes) reads: flags, what is lost, positions.
    ///
    /// ```
    /// use ryw_core::Marks;
    /// let marks = Marks::unknown();
    /// assert_eq!(Marks::from_bytes(&marks.to_bytes()), Ok(marks));
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.positions().len() * Position::LEN);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        bytes.push(
            flag(self.is_unknown(), UNKNOWN) | flag(self.is_pending(), PENDING) | flag(self.lost().is_some(), LOST),
        );
        if let Some(Lost { epoch, was }) = self.lost() {
            bytes.extend(epoch.get().to_be_bytes());
            bytes.extend(was.get().to_be_bytes());
        }
        self.positions().iter().for_each(|position| bytes.extend(position.to_bytes()));
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) has made.
    ///
    /// # Errors
    /// [`MalformedMarks`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedMarks> {
        let (&flags, mut rest) = bytes.split_first().ok_or(MalformedMarks)?;
        if flags & !(UNKNOWN | PENDING | LOST) != 0 {
            return Err(MalformedMarks);
        }
        let mut marks = Self::none();
        if flags & LOST != 0 {
            let mut number = || {
                let (number, left) = rest.split_first_chunk().ok_or(MalformedMarks)?;
                rest = left;
                Ok(Epoch::new(u32::from_be_bytes(*number)))
            };
            marks.add(Mark::Lost(Lost { epoch: number()?, was: number()? }));
        }
        while !rest.is_empty() {
            let (position, left) = rest.split_first_chunk().ok_or(MalformedMarks)?;
            marks.add(Mark::At(Position::from_bytes(*position)));
            rest = left;
        }
        if flags & UNKNOWN != 0 {
            marks.add(Mark::Unknown);
        }
        if flags & PENDING != 0 {
            marks.add(Mark::Pending);
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = Marks> {
        let position = (any::<u64>(), any::<u32>(), any::<u64>())
            .prop_map(|(c, e, o)| Mark::At(Position::new(ClusterId::new(c), Epoch::new(e), o)));
        let lost = (any::<u32>(), any::<u32>()).prop_map(|(e, w)| Lost { epoch: Epoch::new(e), was: Epoch::new(w) });
        let fact = prop_oneof![8 => position, 1 => Just(Mark::Pending), 1 => Just(Mark::Unknown), 1 => lost.prop_map(Mark::Lost)];
        prop::collection::vec(fact, 0..20).prop_map(Marks::from_iter)
    }

    proptest! {
        #[test]
        fn marks_come_back_as_they_were(marks in marks()) {
            prop_assert_eq!(Marks::from_bytes(&marks.to_bytes()), Ok(marks));
        }

        #[test]
        fn any_bytes_are_marks_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(marks) = Marks::from_bytes(&bytes) {
                prop_assert!(marks.to_bytes().len() <= bytes.len().max(1));
            }
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let position = Position::new(ClusterId::new(1), Epoch::new(2), 0x0304);
        let mut marks = Marks::at(position);
        marks.add(Mark::Lost(Lost { epoch: Epoch::new(5), was: Epoch::new(6) }));
        let golden = [4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3, 4];
        assert_eq!(marks.to_bytes(), golden);
        assert_eq!(Position::from_bytes(position.to_bytes()), position);
    }
}
