//! One shard as requests read it. Readers take the writers' lock only where a change lasts for longer than they look, where marks are
//! more than one position, and where a bucket is longer than any should be; and they change nothing.

use ryw_core::{Loaded, Mark, Marks, Position, Stamp, SubjectKey, Unsettled};

use super::{
    change::{Change, Contents, Writer},
    floor::Floor,
    table::{Entry, NONE, Unknown},
    tick::Tick,
};
use crate::sync::{Mutex, MutexGuard, Version};

/// What is read while it may be changed is told to be whole by the version; what only writers need is behind their lock. Whoever
/// writes to one has nothing of another one's cache line.
#[repr(align(64))]
pub(super) struct Shard {
    version: Version,
    /// In ticks.
    ttl: u32,
    contents: Contents,
    writer: Mutex<Writer>,
}

/// What a shard knows of one subject.
struct Known {
    has_entry: bool,
    /// Its own.
    marks: Marks,
    /// What it is held to besides.
    floor: Option<Marks>,
    held_until: Tick,
    /// Once nothing is held any more.
    is_unknown: bool,
    stamp: Stamp,
}

/// How many entries of a bucket a reader looks at before it takes the lock. There is one entry to a bucket on average.
const FEW: usize = 32;

/// How many expired entries go when somebody counts them: requests wait for the lock meanwhile.
const MOST_AT_ONCE: usize = 1000;

impl Shard {
    pub(super) fn new(capacity: u32, ttl: Tick, floor: Floor) -> Self {
        let contents = Contents::new(capacity, &floor);
        let writer = Mutex::new(Writer::new(capacity, floor));
        Self { version: Version::new(), ttl: ttl.0.max(1), contents, writer }
    }

    pub(super) fn load(&self, key: &SubjectKey, now: Tick, loaded: &mut Loaded) {
        self.known(key).tell(key, now, loaded);
    }

    /// As [`load`](Self::load), without the floor of subjects that have no entry.
    pub(super) fn load_own(&self, key: &SubjectKey, now: Tick, loaded: &mut Loaded) {
        let known = self.known(key);
        if known.has_entry {
            known.tell(key, now, loaded);
        }
    }

    pub(super) fn join(&self, key: &SubjectKey, now: Tick, marks: &Marks, held_until: Option<Tick>) {
        self.change().join(key, now, marks, held_until.unwrap_or_default());
    }

    pub(super) fn settle(&self, key: &SubjectKey, stamp: Stamp, now: Tick, at: Option<Position>) {
        self.change().settle(key, stamp, now, at);
    }

    /// Answers for the time before the store was made: once.
    pub(super) fn settle_start(&self, now: Tick, at: Option<Position>) {
        self.change().settle_start(now, at);
    }

    pub(super) fn acknowledge(&self, key: &SubjectKey, told: &Marks) {
        self.change().acknowledge(key, told);
    }

    pub(super) fn len(&self, now: Tick) -> usize {
        self.expired(now).len()
    }

    /// Calls `each` with the time since the last write of each entry, in ticks.
    pub(super) fn ages(&self, now: Tick, each: impl FnMut(u32)) {
        let _alone = self.expired(now);
        let age = |entry: &Entry| now.0.saturating_sub(entry.touched.get());
        self.contents.table.by_age().map(age).filter(|age| *age < self.ttl).for_each(each);
    }

    fn change(&self) -> Change<'_> {
        let writer = self.writer.lock();
        Change::new(&self.contents, self.ttl, self.version.change(), writer)
    }

    /// Nobody else writes until what this returns is dropped; everybody reads.
    fn expired(&self, now: Tick) -> MutexGuard<'_, Writer> {
        let mut change = self.change();
        change.expire(MOST_AT_ONCE, now);
        change.end()
    }

    fn known(&self, key: &SubjectKey) -> Known {
        let seen = self.version.read(|| self.look(key, None)).flatten();
        seen.unwrap_or_else(|| self.known_to_writers(key))
    }

    #[cold]
    fn known_to_writers(&self, key: &SubjectKey) -> Known {
        let writer = self.writer.lock();
        // With their part everything can be told.
        self.look(key, Some(&writer)).unwrap_or_else(Known::nothing)
    }

    /// What has expired and is still there counts: it demands no less than the floor would. `None` where only the writers' part
    /// tells, and that is not there.
    fn look(&self, key: &SubjectKey, writer: Option<&Writer>) -> Option<Known> {
        let most = if writer.is_some() { usize::MAX } else { FEW };
        let Contents { table, histories, start, .. } = &self.contents;
        let slot = table.find(key, most).ok()?.unwrap_or(NONE);
        let Some(entry) = table.get(slot) else { return self.look_below(writer) };
        let compact = entry.compact();
        let marks = match histories.position(compact) {
            Some(position) => Marks::at(position),
            None if compact.is_spilled() => writer?.spilled(slot),
            None => Marks::none(),
        };
        let floor = match entry.unknown() {
            Unknown::Start => start.answer(),
            Unknown::Nothing | Unknown::Something => None,
        };
        let is_unknown = entry.unknown() != Unknown::Nothing && floor.is_none();
        let stamp = entry.stamp();
        Some(Known { has_entry: true, marks, floor, held_until: entry.held_until.tick(), is_unknown, stamp })
    }

    /// What a subject without an entry is held to.
    fn look_below(&self, writer: Option<&Writer>) -> Option<Known> {
        let floor = &self.contents.floor;
        let marks = match floor.marks() {
            Some(marks) => marks,
            None => writer?.floor().marks.clone(),
        };
        let (held_until, is_unknown, stamp) = (floor.held_until(), floor.is_unknown(), floor.stamp());
        Some(Known { has_entry: false, marks: Marks::none(), floor: Some(marks), held_until, is_unknown, stamp })
    }
}

impl Known {
    /// What is told of a subject that nothing can be found out about.
    fn nothing() -> Self {
        Self {
            has_entry: false,
            marks: Marks::none(),
            floor: None,
            held_until: Tick::default(),
            is_unknown: true,
            stamp: Stamp::default(),
        }
    }

    fn tell(self, key: &SubjectKey, now: Tick, loaded: &mut Loaded) {
        let Self { has_entry, marks, floor, held_until, is_unknown, stamp } = self;
        let unsettled = Unsettled { key: *key, stamp };
        let is_open = marks.positions().iter().any(|position| position.is_end());
        loaded.has_entry |= has_entry;
        if loaded.marks.is_none() {
            loaded.marks = marks;
        } else {
            loaded.marks.join(&marks);
        }
        if let Some(floor) = floor {
            loaded.floor.join(&floor);
            loaded.floored.push(unsettled);
        }
        if held_until > now {
            loaded.marks.add(Mark::Pending);
        } else if is_unknown || is_open {
            if is_unknown {
                loaded.marks.add(Mark::Unknown);
            }
            loaded.unsettled.push(unsettled);
        }
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
        time::Duration,
    };

    use ryw_core::{ClusterId, Epoch};

    use super::*;

    /// A session that has written since the start was answered for, one from before, and one that is not there.
    #[test]
    fn reads_wait_for_no_writer() {
        let key = |n| SubjectKey::from_bytes([n; 16]);
        let at = |offset| Position::new(ClusterId::new(1), Epoch::new(1), offset);
        let now = Tick(1);
        let shard = Arc::new(Shard::new(100, Tick(100), Floor::unknown()));
        shard.join(&key(1), now, &Marks::at(at(5)), None);
        shard.settle_start(now, Some(at(7)));
        shard.join(&key(2), now, &Marks::at(at(9)), None);
        let (sender, answers) = mpsc::channel();
        let reader = Arc::clone(&shard);
        let writer = shard.writer.lock();
        thread::spawn(move || {
            for n in 1..=3 {
                let mut loaded = Loaded::default();
                reader.load(&key(n), now, &mut loaded);
                loaded.marks.join(&loaded.floor);
                sender.send(loaded.marks).unwrap();
            }
        });
        for expected in [7, 9, 7] {
            let marks = answers.recv_timeout(Duration::from_secs(20)).expect("it waits for the writer");
            assert_eq!(marks.positions().last(), Some(&at(expected)));
        }
        drop(writer);
    }
}
