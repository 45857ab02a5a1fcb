//! One shard: entries in a list by the time of their last write, an index over them, and the floor below them.

use std::{mem, time::Duration};

use hashbrown::HashTable;
use ryw_core::{
    Loaded, Mark, Marks, Position, Stamp, SubjectKey, Unsettled,
    seeded::{Bug, is_on},
};

use super::compact::{Branches, Compact};

const NONE: u32 = u32::MAX;

/// Tenths of a second since the store was made: 13 years fit, and an entry stays small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u32);

pub(super) struct Shard {
    capacity: usize,
    ttl: u32,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: u32,
    /// Ends of the list of entries, ordered by when they were last written.
    newest: u32,
    oldest: u32,
    branches: Branches,
    floor: Floor,
    /// What answers for the time before the store was made, once that is known.
    start: Option<Option<Position>>,
}

/// 44 bytes: there may be millions.
struct Entry {
    key: SubjectKey,
    marks: Compact,
    /// Until then a write may still be on its way.
    held_until: Tick,
    touched: Tick,
    newer: u32,
    older: u32,
    /// Once the hold is over, nobody knows where the held write landed.
    unknown: Unknown,
}

/// What is not known of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    Nothing,
    /// What it may have written before the store was made: one sample answers that for everybody.
    Start,
    Something,
}

const _: () = assert!(mem::size_of::<Entry>() == 44);

/// What subjects without an entry are held to.
#[derive(Default)]
pub(super) struct Floor {
    marks: Marks,
    held_until: Tick,
    unknown: bool,
    /// How often it has become unknown.
    unknown_count: u64,
}

/// How many expired entries go when somebody looks at a shard: requests wait for the lock meanwhile.
const MOST_AT_ONCE: usize = 1000;

/// The stamp of a floor that has not become unknown since the store was made.
const SINCE_START: Stamp = Stamp(1);

impl Shard {
    pub(super) fn new(capacity: usize, ttl: Tick, floor: Floor) -> Self {
        Self {
            capacity,
            ttl: ttl.0.max(1),
            index: HashTable::new(),
            entries: Vec::new(),
            free: NONE,
            newest: NONE,
            oldest: NONE,
            branches: Branches::default(),
            floor,
            start: None,
        }
    }

    pub(super) fn len(&mut self, now: Tick) -> usize {
        self.expire_up_to(MOST_AT_ONCE, now);
        self.index.len()
    }

    /// Time since the last write of each entry, in ticks.
    pub(super) fn ages(&mut self, now: Tick) -> impl Iterator<Item = u32> {
        self.expire_up_to(MOST_AT_ONCE, now);
        let this = &*self;
        let age = move |slot: &u32| now.0.saturating_sub(this.entries[*slot as usize].touched.0);
        this.index.iter().map(age).filter(move |age| *age < this.ttl)
    }

    pub(super) fn load(&mut self, key: &SubjectKey, now: Tick, loaded: &mut Loaded) {
        self.expire(now);
        let mut open = false;
        let (held_until, unknown, stamp) = match self.find(key) {
            Some(slot) => {
                loaded.has_entry = true;
                let entry = &self.entries[slot as usize];
                open = self.branches.add_to(&mut loaded.marks, slot, entry.marks);
                let unknown = match (entry.unknown, self.start) {
                    (Unknown::Start, Some(start)) => {
                        loaded.floor.join(&start.map_or(Marks::none(), Marks::at));
                        loaded.floored.push(Unsettled { key: *key, stamp: entry.stamp() });
                        false
                    }
                    (unknown, _) => unknown != Unknown::Nothing,
                };
                (entry.held_until, unknown, entry.stamp())
            }
            None => {
                loaded.floor.join(&self.floor.marks);
                let stamp = self.floor.stamp();
                loaded.floored.push(Unsettled { key: *key, stamp });
                (self.floor.held_until, self.floor.unknown, stamp)
            }
        };
        if held_until > now {
            loaded.marks.add(Mark::Pending);
        } else if unknown || open {
            if unknown {
                loaded.marks.add(Mark::Unknown);
            }
            loaded.unsettled.push(Unsettled { key: *key, stamp });
        }
    }

    pub(super) fn knows(&self, key: &SubjectKey) -> bool {
        self.find(key).is_some()
    }

    pub(super) fn join(&mut self, key: &SubjectKey, now: Tick, marks: &Marks, held_until: Option<Tick>) {
        self.expire(now);
        let slot = match self.find(key) {
            Some(slot) => {
                self.unlink(slot);
                slot
            }
            None => self.insert(key, marks),
        };
        self.add_marks(slot, marks);
        let entry = &mut self.entries[slot as usize];
        entry.touched = now;
        entry.held_until = entry.held_until.max(held_until.unwrap_or_default());
        if marks.is_unknown() {
            entry.unknown = Unknown::Something;
        }
        self.link_newest(slot);
        if self.index.len() > self.capacity {
            self.forget(self.oldest);
        }
    }

    pub(super) fn settle(&mut self, key: &SubjectKey, stamp: Stamp, now: Tick, at: Option<Position>) {
        match self.find(key) {
            Some(slot) => {
                let entry = &mut self.entries[slot as usize];
                if entry.held_until <= now && entry.stamp() == stamp || is_on(Bug::Unstick) {
                    entry.held_until = entry.held_until.min(now);
                    entry.unknown = Unknown::Nothing;
                    if let Some(at) = at {
                        let marks = self.take_marks(slot).settled_by(at);
                        self.put_marks(slot, marks);
                    }
                }
            }
            None => self.floor.settle(stamp, now, at),
        }
    }

    /// Answers for the time before the store was made, if that is not done yet.
    pub(super) fn settle_start(&mut self, now: Tick, at: Option<Position>) {
        self.start.get_or_insert(at);
        if self.floor.unknown && self.floor.stamp() == SINCE_START {
            self.floor.settle(SINCE_START, now, at);
        }
    }

    pub(super) fn acknowledge(&mut self, key: &SubjectKey, told: &Marks) {
        if let Some(slot) = self.find(key) {
            let marks = self.take_marks(slot).without(told);
            self.put_marks(slot, marks);
        }
    }

    /// Positions and loss only: what is pending and unknown has fields of its own.
    fn take_marks(&mut self, slot: u32) -> Marks {
        self.branches.take(slot, &mut self.entries[slot as usize].marks)
    }

    fn add_marks(&mut self, slot: u32, marks: &Marks) {
        let mut all = self.take_marks(slot);
        for position in marks.positions() {
            all.add(Mark::At(*position));
        }
        if let Some(lost) = marks.lost() {
            all.add(Mark::Lost(lost));
        }
        self.put_marks(slot, all);
    }

    fn put_marks(&mut self, slot: u32, all: Marks) {
        let unknown = all.is_unknown();
        let marks = self.branches.put(slot, all.without_unknown());
        let entry = &mut self.entries[slot as usize];
        entry.marks = marks;
        if unknown {
            entry.unknown = Unknown::Something;
        }
    }

    fn find(&self, key: &SubjectKey) -> Option<u32> {
        self.index.find(key.hash(), |slot| self.entries[*slot as usize].key == *key).copied()
    }

    /// A new entry starts at the floor: an earlier entry of the same subject may be what raised it. Where `marks` are
    /// of a later epoch, what the floor holds from before the failover may be somebody else's loss, which must not be
    /// told to this subject: the entry is *unknown* instead, and a sample contains whatever survived.
    fn insert(&mut self, key: &SubjectKey, marks: &Marks) -> u32 {
        let of_later_epoch = |held: &&Position| {
            marks.positions().iter().any(|mark| mark.cluster() == held.cluster() && mark.epoch() > held.epoch())
        };
        let is_inherited = |held: &&Position| !marks.is_unknown() && !of_later_epoch(held);
        let held = self.floor.marks.positions();
        let inherited: Marks = held.iter().filter(is_inherited).copied().map(Mark::At).collect();
        let unknown = match self.floor.unknown {
            _ if inherited.positions().len() < held.len() => Unknown::Something,
            true if self.start.is_none() && self.floor.stamp() == SINCE_START => Unknown::Start,
            true => Unknown::Something,
            false => Unknown::Nothing,
        };
        let entry = Entry {
            key: *key,
            marks: Compact::none(),
            held_until: self.floor.held_until,
            touched: Tick(0),
            newer: NONE,
            older: NONE,
            unknown,
        };
        let slot = if self.free == NONE {
            if self.entries.len() == self.entries.capacity() {
                // An eighth more, not twice as much: there is nothing as large as this.
                self.entries.reserve_exact((self.entries.len() / 8).max(8));
            }
            self.entries.push(entry);
            // The capacity of a shard is far below the range of u32, which builds would run out of memory for.
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        } else {
            let slot = self.free;
            self.free = self.entries[slot as usize].newer;
            self.entries[slot as usize] = entry;
            slot
        };
        let entries = &self.entries;
        let hasher = |slot: &u32| entries[*slot as usize].key.hash();
        self.index.insert_unique(key.hash(), slot, hasher);
        if is_on(Bug::NoFence) {
            self.entries[slot as usize].unknown = Unknown::Nothing;
            return slot;
        }
        self.add_marks(slot, &inherited);
        slot
    }

    /// Entries are ordered by their last write and live equally long, so only the oldest can have expired. A few at
    /// a time keep up with any rate of insertion.
    fn expire(&mut self, now: Tick) {
        self.expire_up_to(2, now);
    }

    fn expire_up_to(&mut self, most: usize, now: Tick) {
        for _ in 0..most {
            match self.entries.get(self.oldest as usize) {
                Some(entry) if entry.touched.0.saturating_add(self.ttl) <= now.0 => self.forget(self.oldest),
                _ => return,
            }
        }
    }

    /// Drops an entry and raises the floor to what it demanded.
    fn forget(&mut self, slot: u32) {
        self.unlink(slot);
        let marks = self.take_marks(slot);
        let entry = &mut self.entries[slot as usize];
        if is_on(Bug::Ttl) {
            entry.unknown = Unknown::Nothing;
        } else {
            // Without a loss: it is told to the session that suffered it, not to everybody.
            self.floor.raise(marks.positions());
            self.floor.held_until = self.floor.held_until.max(entry.held_until);
        }
        // The start's doubt is the floor's own.
        if entry.unknown == Unknown::Something {
            self.floor.forget();
        }
        let key = entry.key;
        entry.newer = self.free;
        if let Ok(found) = self.index.find_entry(key.hash(), |other| *other == slot) {
            found.remove();
        }
        self.free = slot;
    }

    fn link_newest(&mut self, slot: u32) {
        let newest = self.newest;
        let entry = &mut self.entries[slot as usize];
        (entry.older, entry.newer) = (newest, NONE);
        match self.entries.get_mut(newest as usize) {
            Some(previous) => previous.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { older, newer, .. } = self.entries[slot as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

impl Entry {
    /// A new hold always ends later than one that is over, so this changes whenever something happens. Odd and even
    /// keep it apart from the stamps of floors.
    const fn stamp(&self) -> Stamp {
        Stamp((self.held_until.0 as u64) << 1)
    }
}

impl Floor {
    /// Whatever an earlier process remembered is gone.
    pub(super) fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    pub(super) fn held_until(held_until: Tick) -> Self {
        Self { held_until, ..Self::default() }
    }

    const fn stamp(&self) -> Stamp {
        Stamp(self.unknown_count << 1 | 1)
    }

    fn raise(&mut self, positions: &[Position]) {
        // The end of an epoch is no place that could be waited for: a sample stands for it.
        let (ends, places): (Vec<Position>, Vec<_>) = positions.iter().partition(|position| position.is_end());
        places.into_iter().for_each(|position| self.marks.add(Mark::At(position)));
        if self.marks.is_unknown() || !ends.is_empty() {
            // Too many branches to keep them all, or something that only a sample can stand for.
            self.marks = mem::take(&mut self.marks).without_unknown();
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.unknown = true;
        self.unknown_count += 1;
    }

    fn settle(&mut self, stamp: Stamp, now: Tick, at: Option<Position>) {
        if let Some(at) = at {
            let outlived = |position: &&Position| position.cluster() != at.cluster() || position.epoch() >= at.epoch();
            self.marks = self.marks.positions().iter().filter(outlived).copied().map(Mark::At).collect();
        }
        // What is held may commit after the sample, which a floor from before a failover is renewed by all the same.
        self.unknown &= self.stamp() != stamp || self.held_until > now;
        if let Some(at) = at
            && !self.unknown
        {
            self.marks.add(Mark::At(at));
        }
    }
}

impl Tick {
    /// Rounded down: for "now".
    pub(super) fn before(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX))
    }

    /// Rounded up: for deadlines.
    pub(super) fn after(time: Duration) -> Self {
        Self(u32::try_from(time.as_nanos().div_ceil(100_000_000)).unwrap_or(u32::MAX))
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 100)
    }
}
