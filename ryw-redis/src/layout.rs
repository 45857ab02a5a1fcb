//! What is kept in Redis, byte by byte, and what it means. `script/join.lua` reads and writes the same.
//!
//! An *entry* has the marks of one subject and expires. A *bucket* has what subjects without an entry are held to, for
//! one of 64 parts of all subjects, and does not expire:
//!
//! ```text
//! entry   flags u8 · generation u32 · [held until u64] · [lost u32 u32] · position*
//! bucket  flags u8 · generation u32 · doubts u32 · period u32 · incarnation 16 · list · flags u8 · list · flags u8 · list
//! list    count u8 · position*
//! position  cluster u64 · epoch u32 · offset u64
//! ```
//!
//! All numbers are big-endian, times are milliseconds of the server's clock. An entry of another generation than its
//! bucket's was written before the server may have lost something, so its subject is held to the bucket's floor as well.

use std::time::Duration;

use ryw_core::{Epoch, Lost, Mark, Marks, Position, Stamp};

const UNKNOWN: u8 = 1;
const HELD: u8 = 2;
const LOST: u8 = 4;
const KNOWN_FLAGS: u8 = UNKNOWN | HELD | LOST;

/// Milliseconds since 1970 by the clock of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(pub(crate) u64);

impl Millis {
    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// One run of a server, as far as its memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation(pub(crate) [u8; 16]);

/// The marks of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) generation: u32,
    /// Positions and loss, and whether it is *unknown* where something was written once the hold is over.
    pub(crate) marks: Marks,
    /// Until then a write may still be on its way.
    pub(crate) held_until: Millis,
}

/// What subjects without an entry are held to, and what it will be once entries have expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) incarnation: Incarnation,
    /// Changes whenever the server may have lost something.
    pub(crate) generation: u32,
    /// How often the floor has become unknown in this generation.
    pub(crate) doubts: u32,
    pub(crate) floor: Marks,
    period: u32,
    /// What was written in this period, and in the one before: each becomes part of the floor when it is over for as long
    /// as an entry lives.
    this: Marks,
    last: Marks,
}

/// Bytes that are no entry or no bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes under this key are not tower-ryw's: is the key prefix shared with something else?")]
pub(crate) struct Malformed;

impl Entry {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Reader(bytes);
        let flags = bytes.flags()?;
        let generation = bytes.u32()?;
        let held_until = if flags & HELD == 0 { Millis(0) } else { Millis(bytes.u64()?) };
        let mut marks = Marks::none();
        if flags & LOST != 0 {
            marks.add(Mark::Lost(Lost { epoch: Epoch::new(bytes.u32()?), was: Epoch::new(bytes.u32()?) }));
        }
        if flags & UNKNOWN != 0 {
            marks.add(Mark::Unknown);
        }
        while !bytes.0.is_empty() {
            marks.add(Mark::At(bytes.position()?));
        }
        Ok(Self { generation, marks, held_until })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let held = if self.held_until > Millis(0) { HELD } else { 0 };
        let mut bytes = vec![flags_of(&self.marks) | held];
        bytes.extend(self.generation.to_be_bytes());
        if held != 0 {
            bytes.extend(self.held_until.0.to_be_bytes());
        }
        write_marks(&mut bytes, &self.marks);
        bytes
    }

    /// A new hold always ends later than one that is over, so this changes whenever something happens. Odd and even keep
    /// it apart from the stamps of floors.
    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp((self.held_until.0 & (u64::MAX >> 5)) << 1)
    }

    /// Whether a sample of the primary, taken now, would say more.
    pub(crate) fn is_open(&self) -> bool {
        self.marks.is_unknown() || self.marks.positions().iter().any(|position| position.is_end())
    }
}

impl Bucket {
    /// Of a server that may have lost anything until now.
    pub(crate) fn new(incarnation: Incarnation, generation: u32, period: u32) -> Self {
        let [this, last] = [Marks::none(), Marks::none()];
        Self { incarnation, generation, doubts: 0, floor: Marks::unknown(), period, this, last }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Reader(bytes);
        let flags = bytes.flags()?;
        let (generation, doubts, period) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
        let incarnation = Incarnation(bytes.array()?);
        let floor = bytes.list(flags)?;
        let [this, last] = [bytes.flagged_list()?, bytes.flagged_list()?];
        if !bytes.0.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { incarnation, generation, doubts, floor, period, this, last })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![flags_of(&self.floor) & UNKNOWN];
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.doubts.to_be_bytes());
        bytes.extend(self.period.to_be_bytes());
        bytes.extend(self.incarnation.0);
        write_list(&mut bytes, &self.floor);
        for list in [&self.this, &self.last] {
            bytes.push(flags_of(list) & UNKNOWN);
            write_list(&mut bytes, list);
        }
        bytes
    }

    /// The same bucket in a later period: what may have expired by now is part of the floor.
    pub(crate) fn in_period(mut self, period: u32) -> Self {
        if period == self.period {
            return self;
        }
        let mut forgotten = std::mem::replace(&mut self.last, std::mem::take(&mut self.this));
        if period != self.period.wrapping_add(1) {
            forgotten.join(&std::mem::take(&mut self.last));
        }
        self.period = period;
        // The end of an epoch is no place that could be waited for: a sample stands for it.
        let was_unknown = self.floor.is_unknown();
        self.floor.join(&forgotten);
        let (ends, places): (Vec<_>, Vec<_>) = self.floor.positions().iter().partition(|position| position.is_end());
        let in_doubt = forgotten.is_unknown() || !ends.is_empty() || self.floor.is_unknown() && !was_unknown;
        self.floor = places.into_iter().copied().map(Mark::At).collect();
        if in_doubt {
            self.doubts = (self.doubts + 1) & (u32::MAX >> 8);
        }
        if in_doubt || was_unknown {
            self.floor.add(Mark::Unknown);
        }
        self
    }

    /// Changes when the floor becomes unknown again.
    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp(((self.generation as u64) << 24 | self.doubts as u64) << 1 | 1)
    }

    /// What `sample` answers, when nothing has happened since the question.
    pub(crate) fn settled(mut self, stamp: Stamp, sample: Option<Position>) -> Self {
        let was_unknown = self.floor.is_unknown();
        if let Some(at) = sample {
            let outlived = |position: &&Position| position.cluster() != at.cluster() || position.epoch() >= at.epoch();
            self.floor = self.floor.positions().iter().filter(outlived).copied().map(Mark::At).collect();
        } else {
            self.floor = self.floor.without_unknown();
        }
        if was_unknown && self.stamp() != stamp {
            self.floor.add(Mark::Unknown);
        } else if let Some(at) = sample {
            self.floor.add(Mark::At(at));
        }
        self
    }
}

fn flags_of(marks: &Marks) -> u8 {
    let lost = if marks.lost().is_some() { LOST } else { 0 };
    let unknown = if marks.is_unknown() { UNKNOWN } else { 0 };
    lost | unknown
}

fn write_marks(bytes: &mut Vec<u8>, marks: &Marks) {
    if let Some(Lost { epoch, was }) = marks.lost() {
        bytes.extend(epoch.get().to_be_bytes());
        bytes.extend(was.get().to_be_bytes());
    }
    marks.positions().iter().for_each(|position| write_position(bytes, *position));
}

fn write_list(bytes: &mut Vec<u8>, marks: &Marks) {
    bytes.push(u8::try_from(marks.positions().len()).unwrap_or(u8::MAX));
    marks.positions().iter().for_each(|position| write_position(bytes, *position));
}

fn write_position(bytes: &mut Vec<u8>, position: Position) {
    bytes.extend(position.to_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn flags(&mut self) -> Result<u8, Malformed> {
        self.u8().and_then(|flags| if flags & !KNOWN_FLAGS == 0 { Ok(flags) } else { Err(Malformed) })
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        self.array().map(Position::from_bytes)
    }

    fn flagged_list(&mut self) -> Result<Marks, Malformed> {
        let flags = self.flags()?;
        self.list(flags)
    }

    fn list(&mut self, flags: u8) -> Result<Marks, Malformed> {
        let count = self.u8()?;
        let mut marks = if flags & UNKNOWN == 0 { Marks::none() } else { Marks::unknown() };
        for _ in 0..count {
            marks.add(Mark::At(self.position()?));
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ryw_core::ClusterId;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        (0u64..3, 0u32..5, prop_oneof![6 => any::<u64>(), 1 => Just(u64::MAX)])
            .prop_map(|(cluster, epoch, offset)| Position::new(ClusterId::new(cluster), Epoch::new(epoch), offset))
    }

    fn marks() -> impl Strategy<Value = Marks> {
        let facts = prop_oneof![
            8 => position().prop_map(Mark::At),
            1 => Just(Mark::Unknown),
            1 => (any::<u32>(), any::<u32>()).prop_map(|(e, w)| Mark::Lost(Lost { epoch: Epoch::new(e), was: Epoch::new(w) })),
        ];
        prop::collection::vec(facts, 0..20).prop_map(Marks::from_iter)
    }

    fn without_loss(marks: Marks) -> Marks {
        let told = marks.lost().map(Mark::Lost).into_iter().collect();
        marks.without(&told)
    }

    prop_compose! {
        fn bucket()(
            incarnation in any::<[u8; 16]>(), generation in any::<u32>(), doubts in 0u32..0x0100_0000,
            period in any::<u32>(), floor in marks(), this in marks(), last in marks(),
        ) -> Bucket {
            let [floor, this, last] = [floor, this, last].map(without_loss);
            Bucket { incarnation: Incarnation(incarnation), generation, doubts, floor, period, this, last }
        }
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(generation in any::<u32>(), marks in marks(), held in any::<u32>()) {
            let entry = Entry { generation, marks, held_until: Millis(held.into()) };
            prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }

        #[test]
        fn buckets_come_back_as_they_were(bucket in bucket()) {
            prop_assert_eq!(Bucket::decode(&bucket.encode()), Ok(bucket));
        }

        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Entry::decode(&bytes), Bucket::decode(&bytes));
        }

        /// However many periods go by, what has gone into the bucket is demanded or in doubt.
        #[test]
        fn periods_forget_nothing(bucket in bucket(), later in 1u32..5) {
            let held_in = |list: &Marks, floor: &Marks| {
                floor.is_unknown() || list.positions().iter().all(|position| floor.covers(&Marks::at(*position)))
            };
            let passed = bucket.clone().in_period(bucket.period.wrapping_add(later));
            prop_assert!(held_in(&bucket.floor, &passed.floor));
            prop_assert!(held_in(&bucket.last, &passed.floor));
            if later > 1 {
                prop_assert!(held_in(&bucket.this, &passed.floor));
                prop_assert!(passed.last.is_none());
            } else {
                prop_assert_eq!(&passed.last, &bucket.this);
            }
            prop_assert!(passed.this.is_none());
            prop_assert!(passed.floor.positions().iter().all(|position| !position.is_end()));
            let doubted = passed.floor.is_unknown() && !bucket.floor.is_unknown();
            prop_assert!(!doubted || passed.stamp() != bucket.stamp(), "an earlier sample does not answer it");
        }
    }
}
