//! Entries, and an index over them by key. Both stay where they are while they grow, so they can be read meanwhile.

use std::{iter, mem};

use ryw_core::{Stamp, SubjectKey};

use super::{
    branches::Compact,
    chunks::Chunks,
    tick::Tick,
    words::{KeyWords, Word},
};

/// The slot of no entry, and of what the list begins and ends with.
pub(super) const NONE: u32 = u32::MAX;

/// 48 bytes: there may be millions.
#[derive(Debug, Default)]
pub(super) struct Entry {
    key: KeyWords,
    offset: [Word; 2],
    /// [`Compact::kind`] in the lower half, [`Unknown`] in the upper one.
    kind_and_unknown: Word,
    /// Until then a write may still be on its way.
    pub(super) held_until: Word,
    /// When it was last written.
    pub(super) touched: Word,
    /// Neighbours in the list of entries by that time. `newer` is the next free one, where this one is free.
    pub(super) newer: Word,
    pub(super) older: Word,
    /// The next of its bucket.
    next: Word,
}

/// What is not known of a subject once no write of it is on its way any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Nothing,
    /// What it may have written before the store was made: one sample answers that for everybody.
    Start,
    Something,
}

const _: () = assert!(mem::size_of::<Entry>() == 48);

/// A hash table by linear hashing (W. Litwin, "Linear hashing: a new tool for file and table addressing", 1980): with each entry there
/// is a bucket more, which takes its share of one other bucket. So nothing is ever moved at once, and nothing larger than a chunk
/// allocated.
#[derive(Debug)]
pub(super) struct Table {
    entries: Chunks<Entry>,
    /// Its neighbours in the list of entries are the oldest and the newest one.
    ends: Entry,
    /// The first entry of each.
    buckets: Chunks<Word>,
    /// How many buckets there are.
    width: Word,
}

/// More entries of a bucket than were asked for.
#[derive(Debug)]
pub(super) struct TooMany;

impl Table {
    /// With slots up to `last`.
    pub(super) fn new(last: u32) -> Self {
        let ends = Entry::default();
        ends.newer.set(NONE);
        ends.older.set(NONE);
        let buckets = Chunks::up_to(last);
        buckets.grow_to(0, Word::none);
        Self { entries: Chunks::up_to(last), ends, buckets, width: Word::new(1) }
    }

    /// The entry in `slot`. `None` only where that is [`NONE`], or read during a change.
    pub(super) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot)
    }

    /// The entry in `slot`, for writers.
    pub(super) fn entry(&self, slot: u32) -> &Entry {
        self.get(slot).unwrap_or(&self.ends)
    }

    /// All entries, that which was written longest ago first. For whoever keeps writers away.
    pub(super) fn by_age(&self) -> impl Iterator<Item = &Entry> {
        iter::successors(self.get(self.ends.newer.get()), |entry| self.get(entry.newer.get()))
    }

    /// The slot of a key, looking at no more than `most` entries of its bucket: during a change they may lead anywhere.
    pub(super) fn find(&self, key: &SubjectKey, most: usize) -> Result<Option<u32>, TooMany> {
        let Some(bucket) = self.buckets.get(bucket(key, self.width.get())) else { return Ok(None) };
        let mut slot = bucket.get();
        for _ in 0..most {
            let Some(entry) = self.get(slot) else { return Ok(None) };
            if entry.key.get() == *key {
                return Ok(Some(slot));
            }
            slot = entry.next.get();
        }
        Err(TooMany)
    }

    /// Makes room in `slot`, which is at most one beyond those that there were before.
    pub(super) fn allocate(&self, slot: u32) {
        self.entries.grow_to(slot, Entry::default);
    }

    /// Puts `key`, which is not there yet, into the free `slot`. `len` are there already.
    pub(super) fn insert(&self, key: &SubjectKey, slot: u32, len: u32) {
        if len >= self.width.get() {
            self.widen();
        }
        let entry = self.entry(slot);
        entry.key.set(key);
        self.push(slot, entry, self.width.get());
    }

    /// Takes the entry in `slot` out of the index.
    pub(super) fn remove(&self, slot: u32) {
        let entry = self.entry(slot);
        let mut link = self.buckets.get(bucket(&entry.key.get(), self.width.get()));
        while let Some(before) = link {
            if before.get() == slot {
                before.set(entry.next.get());
                break;
            }
            link = self.get(before.get()).map(|entry| &entry.next);
        }
    }

    /// One bucket more, with what belongs there of the one that it is split off from.
    fn widen(&self) {
        let new = self.width.get();
        let width = new + 1;
        self.buckets.grow_to(new, Word::none);
        let Some(old) = self.buckets.get(new & (width.next_power_of_two() / 2 - 1)) else { return };
        let mut slot = old.get();
        old.set(NONE);
        self.width.set(width);
        while let Some(entry) = self.get(slot) {
            let next = entry.next.get();
            self.push(slot, entry, width);
            slot = next;
        }
    }

    fn push(&self, slot: u32, entry: &Entry, width: u32) {
        if let Some(bucket) = self.buckets.get(bucket(&entry.key.get(), width)) {
            entry.next.set(bucket.get());
            bucket.set(slot);
        }
    }
}

/// The bucket of a key among `width`. Those behind the half that is being split are still twice as full.
fn bucket(key: &SubjectKey, width: u32) -> u32 {
    let mask = width.next_power_of_two() - 1;
    // The shards are told apart by the other end of the hash.
    let bucket = key.hash() as u32 & mask;
    if bucket < width { bucket } else { bucket & mask >> 1 }
}

impl Word {
    fn none() -> Self {
        Self::new(NONE)
    }
}

impl Entry {
    pub(super) fn compact(&self) -> Compact {
        let [low, high] = &self.offset;
        let offset = u64::from(low.get()) | u64::from(high.get()) << 32;
        Compact { offset, kind: self.kind_and_unknown.get() as u16 }
    }

    pub(super) fn set_compact(&self, Compact { offset, kind }: Compact) {
        let [low, high] = &self.offset;
        low.set(offset as u32);
        high.set((offset >> 32) as u32);
        self.kind_and_unknown.set(self.kind_and_unknown.get() & 0xFFFF_0000 | u32::from(kind));
    }

    pub(super) fn unknown(&self) -> Unknown {
        match self.kind_and_unknown.get() >> 16 {
            0 => Unknown::Nothing,
            1 => Unknown::Start,
            _ => Unknown::Something,
        }
    }

    pub(super) fn set_unknown(&self, unknown: Unknown) {
        self.kind_and_unknown.set(self.kind_and_unknown.get() & 0xFFFF | (unknown as u32) << 16);
    }

    /// A new hold always ends later than one that is over, so this changes whenever something happens. Odd and even
    /// keep it apart from the stamps of floors.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(u64::from(self.held_until.get()) << 1)
    }

    /// Whether it was last written `ttl` or longer ago.
    pub(super) fn has_expired(&self, now: Tick, ttl: u32) -> bool {
        self.touched.get().saturating_add(ttl) <= now.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Some share their whole hash.
    fn key(n: u8) -> SubjectKey {
        let mut bytes = [0; 16];
        bytes[0] = n % 64;
        bytes[15] = n;
        SubjectKey::from_bytes(bytes)
    }

    proptest! {
        #[test]
        fn finds_what_was_put_in_and_not_taken_out(steps in prop::collection::vec(any::<u8>(), 0..600)) {
            let table = Table::new(600);
            let mut known: HashMap<u8, u32> = HashMap::new();
            for (slot, n) in (0..).zip(steps) {
                match known.remove(&n) {
                    Some(slot) => table.remove(slot),
                    None => {
                        table.allocate(slot);
                        table.insert(&key(n), slot, u32::try_from(known.len()).unwrap());
                        known.insert(n, slot);
                    }
                }
            }
            for n in 0..=255 {
                assert_eq!(table.find(&key(n), usize::MAX).unwrap(), known.get(&n).copied(), "{n}");
            }
        }
    }

    #[test]
    fn buckets_grow_with_the_entries_and_stay_short() {
        let table = Table::new(10_000);
        let spread = |n: u32| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15).swap_bytes().to_le_bytes());
            SubjectKey::from_bytes(bytes)
        };
        for n in 0..10_000 {
            table.allocate(n);
            table.insert(&spread(n), n, n);
        }
        assert_eq!(table.width.get(), 10_000);
        assert!((0..10_000).all(|n| table.find(&spread(n), 16).unwrap() == Some(n)));
        assert!(table.find(&spread(1), 0).is_err(), "the bound is one");
    }

    #[test]
    fn words_come_back_as_they_were() {
        let entry = Entry::default();
        for unknown in [Unknown::Something, Unknown::Nothing, Unknown::Start] {
            for compact in [Compact { offset: u64::MAX - 5, kind: 0xFFFE }, Compact { offset: 1 << 32, kind: 3 }] {
                entry.set_unknown(unknown);
                entry.set_compact(compact);
                entry.set_unknown(unknown);
                assert_eq!((entry.compact(), entry.unknown()), (compact, unknown));
            }
        }
    }
}
