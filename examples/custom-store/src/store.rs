//! Marks in one map. When it is full it forgets everything, but not silently: whoever has no entry is held to the *floor*, which
//! contains all that was forgotten.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ryw_core::{Loaded, Mark, MarkStore, Marks, Position, Stamp, StoreFuture, SubjectKey, Unsettled, Update};
use tokio::time::Instant;

/// Cheap to clone: all clones are the same store.
#[derive(Clone, Debug)]
pub(crate) struct MapStore(Arc<Mutex<Map>>);

#[derive(Debug)]
struct Map {
    capacity: usize,
    entries: HashMap<SubjectKey, Entry>,
    floor: Entry,
    next_stamp: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Positions, losses, and *unknown*.
    marks: Marks,
    /// Until then a write may still be on its way.
    held_until: Instant,
    /// Changes whenever a doubt is added: an answer to an earlier question settles nothing.
    stamp: Stamp,
}

impl MapStore {
    pub(crate) fn new(capacity: usize) -> Self {
        // What an earlier process knew is gone.
        let floor = Entry { marks: Marks::unknown(), held_until: Instant::now(), stamp: Stamp(0) };
        Self(Arc::new(Mutex::new(Map { capacity, entries: HashMap::new(), floor, next_stamp: 1 })))
    }
}

impl Map {
    fn stamp(&mut self) -> Stamp {
        self.next_stamp += 1;
        Stamp(self.next_stamp)
    }

    fn load(&self, key: &SubjectKey, loaded: &mut Loaded) {
        let entry = self.entries.get(key);
        let Entry { marks, held_until, stamp } = entry.unwrap_or(&self.floor);
        let unsettled = Unsettled { key: *key, stamp: *stamp };
        loaded.has_entry |= entry.is_some();
        match entry {
            Some(_) => loaded.marks.join(&marks.clone().without_unknown()),
            None => {
                loaded.floor.join(&marks.clone().without_unknown());
                loaded.floored.push(unsettled);
            }
        }
        let is_open = marks.positions().iter().any(|position| position.is_end());
        if *held_until > Instant::now() {
            loaded.marks.add(Mark::Pending);
        } else if marks.is_unknown() || is_open {
            if marks.is_unknown() {
                loaded.marks.add(Mark::Unknown);
            }
            loaded.unsettled.push(unsettled);
        }
    }

    fn join(&mut self, key: &SubjectKey, update: &Update) {
        if !self.entries.contains_key(key) {
            if self.entries.len() >= self.capacity {
                self.forget();
            }
            let entry = self.floor.above(update);
            self.entries.insert(*key, entry);
        }
        let held_until = update.hold.map(|hold| Instant::now() + hold);
        let stamp = self.stamp();
        if let Some(entry) = self.entries.get_mut(key) {
            entry.marks.join(&update.marks);
            entry.held_until = entry.held_until.max(held_until.unwrap_or(entry.held_until));
            entry.stamp = stamp;
        }
    }

    fn forget(&mut self) {
        for (_, entry) in self.entries.drain() {
            self.floor.held_until = self.floor.held_until.max(entry.held_until);
            // A loss is told to whom it concerns, not to everybody; and where a write lies before the end of an epoch,
            // nobody can wait for.
            let marks = entry.marks.positions().iter().map(|position| match position.is_end() {
                true => Mark::Unknown,
                false => Mark::At(*position),
            });
            marks.for_each(|mark| self.floor.marks.add(mark));
            if entry.marks.is_unknown() {
                self.floor.marks.add(Mark::Unknown);
            }
        }
        self.floor.stamp = self.stamp();
    }
}

impl Entry {
    /// What somebody without an entry starts with: an entry that was forgotten may have been theirs. What others wrote
    /// before a failover may be lost, which is not to be told to everybody: then a sample has to say what survived.
    fn above(&self, update: &Update) -> Self {
        let is_newer = |held: &Position| {
            let newer = |mark: &&Position| mark.cluster() == held.cluster() && mark.epoch() > held.epoch();
            update.marks.positions().iter().any(|mark| newer(&mark))
        };
        let (older, inherited): (Vec<Position>, _) =
            self.marks.positions().iter().copied().partition(|held| is_newer(held));
        let mut marks: Marks = inherited.into_iter().map(Mark::At).collect();
        if self.marks.is_unknown() || !older.is_empty() {
            marks.add(Mark::Unknown);
        }
        Self { marks, ..self.clone() }
    }

    /// A floor is nobody's own write: what survived of an earlier epoch is contained in the sample.
    fn renew(&mut self, stamp: Stamp, at: Option<Position>) {
        if let Some(at) = at {
            let unknown = self.marks.is_unknown().then_some(Mark::Unknown);
            let is_outlived = |held: &&Position| held.cluster() == at.cluster() && held.epoch() < at.epoch();
            let kept = self.marks.positions().iter().filter(|held| !is_outlived(held)).copied().map(Mark::At);
            self.marks = kept.chain(unknown).collect();
        }
        self.settle(stamp, at);
    }

    fn settle(&mut self, stamp: Stamp, at: Option<Position>) {
        if self.stamp == stamp && self.held_until <= Instant::now() {
            let known = std::mem::take(&mut self.marks).without_unknown();
            self.marks = at.map_or(known.clone(), |at| known.settled_by(at));
        }
    }
}

impl MarkStore for MapStore {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        let (map, mut loaded) = (self.0.lock(), Loaded::default());
        keys.iter().for_each(|key| map.load(key, &mut loaded));
        StoreFuture::ready(loaded)
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        let mut map = self.0.lock();
        keys.iter().for_each(|key| map.join(key, update));
        StoreFuture::ready(())
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let map = &mut *self.0.lock();
        for Unsettled { key, stamp } in unsettled {
            match map.entries.get_mut(key) {
                Some(entry) => entry.settle(*stamp, at),
                None => map.floor.renew(*stamp, at),
            }
        }
        StoreFuture::ready(())
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        let mut map = self.0.lock();
        for key in keys {
            if let Some(entry) = map.entries.get_mut(key) {
                entry.marks = std::mem::take(&mut entry.marks).without(told);
            }
        }
        StoreFuture::ready(())
    }
}
