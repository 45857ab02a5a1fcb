//! What is in the file: entries, each with its length and a checksum.
//!
//! ```text
//! entry    length u32 · checksum u64 · payload
//! payload  1 · since u64 · held until u64 · hold u32 · count u16 · count × subject 16 · marks
//!          2
//! ```
//!
//! All numbers are big-endian, times are milliseconds, since 1970 where they are no durations. The length is the
//! payload's, the checksum SipHash-1-3 of it. The second kind says that something could not be kept.

use std::{hash::Hasher, time::Duration};

use ryw_core::{Marks, SubjectKey};
use siphasher::sip::SipHasher13;

const MARKS: u8 = 1;
const GAP: u8 = 2;
const HEAD: usize = 12;
/// Before the subjects.
const FIXED: usize = 23;
/// Subjects of one entry; an update of more becomes several.
const MAX_KEYS: usize = 1024;
/// Longer than any payload; what claims to be longer is damaged.
const MAX_LEN: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Marks(Undelivered),
    /// Something could not be kept.
    Gap,
}

/// What a store was to join into the marks of some subjects. Times are those of the wall clock, since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undelivered {
    pub(crate) keys: Vec<SubjectKey>,
    pub(crate) marks: Marks,
    /// When it was kept.
    pub(crate) since: Duration,
    pub(crate) hold: Option<Hold>,
}

/// A write may still be on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) until: Duration,
    /// How long that was when it was written: however wrong a clock is, it lasts no longer.
    pub(crate) length: Duration,
}

impl Undelivered {
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        for keys in self.keys.chunks(MAX_KEYS) {
            let hold = self.hold.unwrap_or(Hold { until: Duration::ZERO, length: Duration::ZERO });
            frame(bytes, |bytes| {
                bytes.push(MARKS);
                bytes.extend(millis(self.since).to_be_bytes());
                bytes.extend(millis(hold.until).to_be_bytes());
                bytes.extend(u32::try_from(millis(hold.length)).unwrap_or(u32::MAX).to_be_bytes());
                bytes.extend(u16::try_from(keys.len()).unwrap_or(u16::MAX).to_be_bytes());
                keys.iter().for_each(|key| bytes.extend(key.as_bytes()));
                bytes.extend(self.marks.to_bytes());
            });
        }
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (fixed, mut rest) = payload.split_first_chunk::<{ FIXED - 1 }>()?;
        let since = u64::from_be_bytes(*fixed.first_chunk()?);
        let until = u64::from_be_bytes(*fixed[8..].first_chunk()?);
        let length = u32::from_be_bytes(*fixed[16..].first_chunk()?);
        let count = u16::from_be_bytes(*fixed[20..].first_chunk()?);
        let mut keys = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (key, left) = rest.split_first_chunk()?;
            keys.push(SubjectKey::from_bytes(*key));
            rest = left;
        }
        let marks = Marks::from_bytes(rest).ok()?;
        let hold = Hold { until: Duration::from_millis(until), length: Duration::from_millis(length.into()) };
        let hold = Some(hold).filter(|hold| !hold.length.is_zero());
        Some(Self { keys, marks, since: Duration::from_millis(since), hold })
    }
}

impl Entry {
    /// How many bytes an entry about one subject takes.
    pub(crate) fn size_of(marks: &Marks) -> u64 {
        (HEAD + FIXED + 16) as u64 + marks.to_bytes().len() as u64
    }

    pub(crate) fn write_gap(bytes: &mut Vec<u8>) {
        frame(bytes, |bytes| bytes.push(GAP));
    }

    /// The entry that `bytes` begin with, and what follows it. `None` where it was torn or damaged.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (checksum, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= MAX_LEN)?;
        let (payload, rest) = rest.split_at_checked(length)?;
        if sum(payload) != u64::from_be_bytes(*checksum) {
            return None;
        }
        let entry = match payload.split_first()? {
            (&MARKS, payload) => Self::Marks(Undelivered::read(payload)?),
            (&GAP, []) => Self::Gap,
            _ => return None,
        };
        Some((entry, rest))
    }
}

fn frame(bytes: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; HEAD]);
    payload(bytes);
    let (head, payload) = bytes[start..].split_at_mut(HEAD);
    head[..4].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    head[4..].copy_from_slice(&sum(payload).to_be_bytes());
}

/// Tells what was torn or damaged; nobody forges what is in this directory.
fn sum(payload: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(payload);
    hasher.finish()
}

/// Rounded up: a hold is not over too early.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ryw_core::{ClusterId, Epoch, Mark, Position};

    use super::*;

    fn undelivered() -> impl Strategy<Value = Undelivered> {
        let position = (any::<u64>(), any::<u32>(), any::<u64>())
            .prop_map(|(c, e, o)| Mark::At(Position::new(ClusterId::new(c), Epoch::new(e), o)));
        let marks = prop::collection::vec(prop_oneof![9 => position, 1 => Just(Mark::Unknown)], 0..20);
        let keys = prop::collection::vec(any::<[u8; 16]>().prop_map(SubjectKey::from_bytes), 1..5);
        (keys, marks, any::<u32>(), any::<u32>(), 0u64..10_000).prop_map(|(keys, marks, since, until, length)| {
            let [since, until, length] = [since.into(), until.into(), length].map(Duration::from_millis);
            let hold = (!length.is_zero()).then_some(Hold { until, length });
            Undelivered { keys, marks: marks.into_iter().collect(), since, hold }
        })
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(entry in undelivered()) {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            if entry.keys.len() == 1 {
                prop_assert_eq!(bytes.len() as u64, Entry::size_of(&entry.marks));
            }
            Entry::write_gap(&mut bytes);
            let (first, rest) = Entry::read(&bytes).unwrap();
            prop_assert_eq!(first, Entry::Marks(entry));
            prop_assert_eq!(Entry::read(rest), Some((Entry::Gap, &[][..])));
        }

        #[test]
        fn a_damaged_byte_is_noticed(entry in undelivered(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Entry::read(&bytes), None);
        }

        #[test]
        fn any_bytes_are_an_entry_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::read(&bytes);
        }
    }

    #[test]
    fn an_update_of_many_subjects_becomes_several_entries() {
        let keys: Vec<_> = (0..2500u128).map(|n| SubjectKey::from_bytes(n.to_be_bytes())).collect();
        let entry = Undelivered { keys: keys.clone(), marks: Marks::unknown(), since: Duration::ZERO, hold: None };
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        let (mut found, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((Entry::Marks(entry), left)) = Entry::read(rest) {
            found.extend(entry.keys);
            rest = left;
        }
        assert_eq!((found, rest), (keys, &[][..]));
    }
}
