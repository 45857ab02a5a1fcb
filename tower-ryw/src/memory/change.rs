//! One shard as it is written: by one at a time, in entries that are ordered by the time of their last write.

use ryw_core::{
    Mark, Marks, Position, Stamp, SubjectKey,
    seeded::{Bug, is_on},
};

use super::{
    branches::{Branches, Compact, Histories},
    floor::{Floor, FloorWords, SINCE_START, Start},
    table::{Entry, NONE, Table, Unknown},
    tick::Tick,
};
use crate::sync::{Changing, MutexGuard};

/// What readers see, also while it is changed.
pub(super) struct Contents {
    pub(super) table: Table,
    pub(super) histories: Histories,
    pub(super) floor: FloorWords,
    pub(super) start: Start,
}

/// What only writers need.
pub(super) struct Writer {
    capacity: u32,
    /// How many entries there are, and how many slots they have ever taken.
    len: u32,
    used: u32,
    /// The first of those that are free.
    free: u32,
    branches: Branches,
    floor: Floor,
}

/// A change of a shard, until this is dropped.
pub(super) struct Change<'a> {
    /// Ends before the lock does.
    _changing: Changing<'a>,
    writer: MutexGuard<'a, Writer>,
    contents: &'a Contents,
    ttl: u32,
}

impl Contents {
    pub(super) fn new(capacity: u32, floor: &Floor) -> Self {
        let words = FloorWords::default();
        words.set(floor);
        // One more comes in before the oldest one goes.
        let table = Table::new(capacity);
        Self { table, histories: Histories::new(), floor: words, start: Start::default() }
    }
}

impl Writer {
    pub(super) fn new(capacity: u32, floor: Floor) -> Self {
        Self { capacity, len: 0, used: 0, free: NONE, branches: Branches::new(), floor }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn floor(&self) -> &Floor {
        &self.floor
    }

    /// The marks of the entry in `slot`, where they are not in the entry itself.
    pub(super) fn spilled(&self, slot: u32) -> Marks {
        self.branches.spilled(slot).cloned().unwrap_or_default()
    }
}

impl<'a> Change<'a> {
    pub(super) fn new(
        contents: &'a Contents,
        ttl: u32,
        changing: Changing<'a>,
        writer: MutexGuard<'a, Writer>,
    ) -> Self {
        Self { _changing: changing, writer, contents, ttl }
    }

    /// The lock is kept.
    pub(super) fn end(self) -> MutexGuard<'a, Writer> {
        self.writer
    }

    pub(super) fn join(&mut self, key: &SubjectKey, now: Tick, marks: &Marks, held_until: Tick) {
        self.expire_few(now);
        let known = self.find(key);
        let slot = match known {
            Some(slot) => {
                self.unlink(slot);
                slot
            }
            None => self.insert(key, marks),
        };
        self.add_marks(slot, marks);
        let entry = self.entry(slot);
        entry.touched.set(now.0);
        let before = entry.held_until.tick();
        let mut until = before.max(held_until);
        if marks.is_unknown() {
            // Whoever samples for what was unknown before must not settle this: the stamp has to be another one. While it is held,
            // nobody samples for it.
            if known.is_some() && until == before && before <= now {
                until = Tick(before.0.saturating_add(1));
            }
            entry.set_unknown(Unknown::Something);
        }
        entry.held_until.set(until.0);
        self.link_newest(slot);
        if self.writer.len > self.writer.capacity {
            self.forget(self.oldest());
        }
    }

    pub(super) fn settle(&mut self, key: &SubjectKey, stamp: Stamp, now: Tick, at: Option<Position>) {
        let Some(slot) = self.find(key) else { return self.settle_floor(stamp, now, at) };
        let entry = self.entry(slot);
        if entry.held_until.tick() <= now && entry.stamp() == stamp || is_on(Bug::Unstick) {
            entry.held_until.set(entry.held_until.get().min(now.0));
            entry.set_unknown(Unknown::Nothing);
            if let Some(at) = at {
                let marks = self.take_marks(slot).settled_by(at);
                self.put_marks(slot, marks);
            }
        }
    }

    pub(super) fn settle_start(&mut self, now: Tick, at: Option<Position>) {
        self.contents.start.settle(at);
        if self.writer.floor.unknown && self.writer.floor.stamp() == SINCE_START {
            self.settle_floor(SINCE_START, now, at);
        }
    }

    pub(super) fn acknowledge(&mut self, key: &SubjectKey, told: &Marks) {
        if let Some(slot) = self.find(key) {
            let marks = self.take_marks(slot).without(told);
            self.put_marks(slot, marks);
        }
    }

    /// Entries are ordered by their last write and live equally long, so only the oldest can have expired. A few at
    /// a time keep up with any rate of insertion.
    fn expire_few(&mut self, now: Tick) {
        self.expire(2, now);
    }

    pub(super) fn expire(&mut self, most: usize, now: Tick) {
        for _ in 0..most {
            let oldest = self.oldest();
            if oldest == NONE || !self.entry(oldest).has_expired(now, self.ttl) {
                return;
            }
            self.forget(oldest);
        }
    }

    fn settle_floor(&mut self, stamp: Stamp, now: Tick, at: Option<Position>) {
        self.writer.floor.settle(stamp, now, at);
        self.contents.floor.set(&self.writer.floor);
    }

    /// Positions and loss only: what is pending and unknown has fields of its own.
    fn take_marks(&mut self, slot: u32) -> Marks {
        let entry = self.entry(slot);
        let compact = entry.compact();
        entry.set_compact(Compact::none());
        self.writer.branches.take(&self.contents.histories, slot, compact)
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
        let entry = self.entry(slot);
        if all.is_unknown() {
            entry.set_unknown(Unknown::Something);
        }
        entry.set_compact(self.writer.branches.put(&self.contents.histories, slot, all.without_unknown()));
    }

    fn entry(&self, slot: u32) -> &'a Entry {
        self.contents.table.entry(slot)
    }

    fn find(&self, key: &SubjectKey) -> Option<u32> {
        self.contents.table.find(key, usize::MAX).ok().flatten()
    }

    /// A new entry starts at the floor: an earlier entry of the same subject may be what raised it. Where `marks` are
    /// of a later epoch, what the floor holds from before the failover may be somebody else's loss, which must not be
    /// told to this subject: the entry is *unknown* instead, and a sample contains whatever survived.
    fn insert(&mut self, key: &SubjectKey, marks: &Marks) -> u32 {
        let floor = &self.writer.floor;
        let of_later_epoch = |held: &&Position| {
            marks.positions().iter().any(|mark| mark.cluster() == held.cluster() && mark.epoch() > held.epoch())
        };
        let is_inherited = |held: &&Position| !marks.is_unknown() && !of_later_epoch(held);
        let held = floor.marks.positions();
        let inherited: Marks = held.iter().filter(is_inherited).copied().map(Mark::At).collect();
        let unknown = match floor.unknown {
            _ if inherited.positions().len() < held.len() => Unknown::Something,
            true if self.contents.start.answer().is_none() && floor.stamp() == SINCE_START => Unknown::Start,
            true => Unknown::Something,
            false => Unknown::Nothing,
        };
        let held_until = floor.held_until;
        let slot = self.take_slot();
        let entry = self.entry(slot);
        entry.set_compact(Compact::none());
        entry.set_unknown(unknown);
        entry.held_until.set(held_until.0);
        self.contents.table.insert(key, slot, self.writer.len);
        self.writer.len += 1;
        if is_on(Bug::NoFence) {
            entry.set_unknown(Unknown::Nothing);
            return slot;
        }
        self.add_marks(slot, &inherited);
        slot
    }

    fn take_slot(&mut self) -> u32 {
        let slot = self.writer.free;
        if slot != NONE {
            self.writer.free = self.entry(slot).newer.get();
            return slot;
        }
        let slot = self.writer.used;
        self.contents.table.allocate(slot);
        self.writer.used += 1;
        slot
    }

    /// Drops an entry and raises the floor to what it demanded.
    fn forget(&mut self, slot: u32) {
        self.unlink(slot);
        let marks = self.take_marks(slot);
        let entry = self.entry(slot);
        let floor = &mut self.writer.floor;
        if is_on(Bug::Ttl) {
            entry.set_unknown(Unknown::Nothing);
        } else {
            // Without a loss: it is told to the session that suffered it, not to everybody.
            floor.raise(marks.positions());
            floor.held_until = floor.held_until.max(entry.held_until.tick());
        }
        // The start's doubt is the floor's own.
        if entry.unknown() == Unknown::Something {
            floor.forget();
        }
        self.contents.floor.set(floor);
        self.contents.table.remove(slot);
        entry.newer.set(self.writer.free);
        self.writer.free = slot;
        self.writer.len -= 1;
    }

    fn oldest(&self) -> u32 {
        self.entry(NONE).newer.get()
    }

    fn link_newest(&self, slot: u32) {
        let (entry, ends) = (self.entry(slot), self.entry(NONE));
        let newest = ends.older.get();
        entry.older.set(newest);
        entry.newer.set(NONE);
        self.entry(newest).newer.set(slot);
        ends.older.set(slot);
    }

    fn unlink(&self, slot: u32) {
        let entry = self.entry(slot);
        self.entry(entry.newer.get()).older.set(entry.older.get());
        self.entry(entry.older.get()).newer.set(entry.newer.get());
    }
}
