//! The local mark store: bounded, and it never forgets silently.
//!
//! Every bounded map forgets something under pressure. Here an entry that is evicted or expires raises its shard's
//! *floor* to what it demanded, and a subject that the shard does not know is held to that floor: forgetting can
//! cost a read a few milliseconds, never its guarantee. A new store starts with a floor that is *unknown*, because
//! whatever an earlier process remembered is gone; the first read that meets it has the primary's position sampled.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use hashbrown::{HashTable, hash_table::Entry as Slot};
use parking_lot::Mutex;
use ryw_core::{Loaded, Mark, MarkStore, Marks, Position, Stamp, StoreFuture, SubjectKey, Unsettled, Update};
use tokio::time::Instant;

const SHARDS: usize = 64;
const NONE: u32 = u32::MAX;

/// Keeps marks in this process: bounded, with expiry, constant time per operation. Cheap to clone.
///
/// ```
/// use tower_ryw::LocalStore;
/// let store = LocalStore::builder().capacity(100_000).build();
/// assert_eq!(store.len(), 0);
/// ```
#[derive(Clone)]
pub struct LocalStore(Arc<Inner>);

struct Inner {
    started: Instant,
    shards: Box<[Mutex<Shard>]>,
}

/// Settings of a [`LocalStore`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LocalStoreBuilder {
    capacity: usize,
    ttl: Duration,
    start: Start,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Unknown,
    Held(Duration),
}

/// Tenths of a second since the store was made: 13 years fit, and an entry stays small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u32);

struct Shard {
    capacity: usize,
    ttl: u32,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: u32,
    /// Ends of the list of entries, ordered by when they were last written.
    newest: u32,
    oldest: u32,
    /// Marks that one position can't express: several epochs or clusters, or a loss.
    spilled: HashMap<u32, Marks>,
    floor: Floor,
}

struct Entry {
    key: SubjectKey,
    marks: Compact,
    /// Until then a write may still be on its way.
    held_until: Tick,
    touched: Tick,
    newer: u32,
    older: u32,
    /// Once the hold is over, nobody knows where the held write landed.
    unknown: bool,
}

#[derive(Clone, Copy)]
enum Compact {
    None,
    At(Position),
    Spilled,
}

/// What subjects without an entry are held to.
#[derive(Default)]
struct Floor {
    marks: Marks,
    held_until: Tick,
    unknown: bool,
    /// How often it has become unknown.
    unknown_count: u64,
}

impl LocalStore {
    /// A store with the default settings, see [`LocalStoreBuilder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a store.
    pub const fn builder() -> LocalStoreBuilder {
        LocalStoreBuilder { capacity: 1_000_000, ttl: Duration::from_secs(300), start: Start::Unknown }
    }

    /// How many subjects have a mark of their own.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().index.len()).sum()
    }

    /// Whether no subject has a mark of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Age of the mark that was written longest ago, and the mean age of all, with a resolution of 100 ms. `None`
    /// when there is none. Takes time in proportion to the number of marks: for diagnostics.
    #[must_use]
    pub fn ages(&self) -> Option<(Duration, Duration)> {
        let now = self.0.now();
        let (mut count, mut sum, mut oldest) = (0, 0, 0);
        for shard in &self.0.shards {
            let shard = shard.lock();
            for slot in &shard.index {
                let age = now.0.saturating_sub(shard.entries[*slot as usize].touched.0);
                count += 1;
                sum += u64::from(age);
                oldest = oldest.max(age);
            }
        }
        (count > 0).then(|| (Tick(oldest).duration(), Duration::from_millis(sum * 100 / count)))
    }
}

impl LocalStoreBuilder {
    /// How many subjects to keep, at least 1. Default: 1 000 000, at 72 bytes each and an index of 5 to 10.
    pub const fn capacity(mut self, subjects: usize) -> Self {
        self.capacity = if subjects == 0 { 1 } else { subjects };
        self
    }

    /// How long to keep a mark after its last write; what expires is still covered by the floor. Default: 5 minutes.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// For use without positions: subjects that the store does not know are held to the primary for `window` after
    /// the store was made, instead of being unknown. Default: unknown until a position has been sampled.
    pub const fn held_at_start(mut self, window: Duration) -> Self {
        self.start = Start::Held(window);
        self
    }

    /// The store.
    #[must_use]
    pub fn build(self) -> LocalStore {
        let Self { capacity, ttl, start } = self;
        let shards = SHARDS.min(capacity).next_power_of_two();
        let shards = if shards > capacity { shards / 2 } else { shards };
        let floor = || match start {
            Start::Unknown => Floor { unknown: true, ..Floor::default() },
            Start::Held(window) => Floor { held_until: Tick::after(window), ..Floor::default() },
        };
        let shard = |_| {
            Mutex::new(Shard {
                capacity: capacity.div_ceil(shards),
                ttl: Tick::after(ttl).0.max(1),
                index: HashTable::new(),
                entries: Vec::new(),
                free: NONE,
                newest: NONE,
                oldest: NONE,
                spilled: HashMap::new(),
                floor: floor(),
            })
        };
        LocalStore(Arc::new(Inner { started: Instant::now(), shards: (0..shards).map(shard).collect() }))
    }
}

impl Inner {
    fn now(&self) -> Tick {
        Tick::before(self.started.elapsed())
    }

    fn shard(&self, key: &SubjectKey) -> &Mutex<Shard> {
        // The table inside the shard uses the other end of the hash.
        let shard = (key.hash() >> 48) as usize & (self.shards.len() - 1);
        &self.shards[shard]
    }
}

impl MarkStore for LocalStore {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        let now = self.0.now();
        let mut loaded = Loaded::default();
        for key in keys {
            self.0.shard(key).lock().load(key, now, &mut loaded);
        }
        StoreFuture::ready(loaded)
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        let now = self.0.now();
        let held_until = update.hold.map(|hold| Tick::after(self.0.started.elapsed().saturating_add(hold)));
        for key in keys {
            self.0.shard(key).lock().join(key, now, &update.marks, held_until);
        }
        StoreFuture::ready(())
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let now = self.0.now();
        for Unsettled { key, stamp } in unsettled {
            self.0.shard(key).lock().settle(key, *stamp, now, at);
        }
        StoreFuture::ready(())
    }
}

impl Shard {
    fn load(&mut self, key: &SubjectKey, now: Tick, loaded: &mut Loaded) {
        self.expire(now);
        let (held_until, unknown, stamp) = match self.find(key) {
            Some(slot) => {
                let entry = &self.entries[slot as usize];
                match entry.marks {
                    Compact::None => {}
                    Compact::At(position) => loaded.marks.add(Mark::At(position)),
                    Compact::Spilled => loaded.marks.join(&self.spilled[&slot]),
                }
                (entry.held_until, entry.unknown, entry.stamp())
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
        } else if unknown {
            loaded.marks.add(Mark::Unknown);
            loaded.unsettled.push(Unsettled { key: *key, stamp });
        }
    }

    fn join(&mut self, key: &SubjectKey, now: Tick, marks: &Marks, held_until: Option<Tick>) {
        self.expire(now);
        let slot = match self.find(key) {
            Some(slot) => {
                self.unlink(slot);
                slot
            }
            None => self.insert(key),
        };
        self.add_marks(slot, marks);
        let entry = &mut self.entries[slot as usize];
        entry.touched = now;
        entry.held_until = entry.held_until.max(held_until.unwrap_or_default());
        entry.unknown |= marks.is_unknown();
        self.link_newest(slot);
        if self.index.len() > self.capacity {
            self.forget(self.oldest);
        }
    }

    fn settle(&mut self, key: &SubjectKey, stamp: Stamp, now: Tick, at: Option<Position>) {
        match self.find(key) {
            Some(slot) => {
                let entry = &mut self.entries[slot as usize];
                if entry.unknown && entry.held_until <= now && entry.stamp() == stamp {
                    self.add_marks(slot, &at.map(Marks::at).unwrap_or_default());
                    // Also when that was one branch too many: the sample contains what survived of the others.
                    self.entries[slot as usize].unknown = false;
                }
            }
            None => self.floor.settle(stamp, at),
        }
    }

    fn add_marks(&mut self, slot: u32, marks: &Marks) {
        let entry = &mut self.entries[slot as usize];
        let mut all = match entry.marks {
            Compact::None => Marks::none(),
            Compact::At(position) => Marks::at(position),
            Compact::Spilled => self.spilled.remove(&slot).unwrap_or_default(),
        };
        for position in marks.positions() {
            all.add(Mark::At(*position));
        }
        if let Some(lost) = marks.lost() {
            all.add(Mark::Lost(lost));
        }
        entry.unknown |= all.is_unknown();
        let all = all.without_unknown();
        entry.marks = match (all.positions(), all.lost()) {
            ([], None) => Compact::None,
            ([position], None) => Compact::At(*position),
            _ => {
                self.spilled.insert(slot, all);
                Compact::Spilled
            }
        };
    }

    fn find(&self, key: &SubjectKey) -> Option<u32> {
        self.index.find(key.hash(), |slot| self.entries[*slot as usize].key == *key).copied()
    }

    /// A new entry starts at the floor: an earlier entry of the same subject may be what raised it.
    fn insert(&mut self, key: &SubjectKey) -> u32 {
        let entry = Entry {
            key: *key,
            marks: Compact::None,
            held_until: self.floor.held_until,
            touched: Tick(0),
            newer: NONE,
            older: NONE,
            unknown: self.floor.unknown,
        };
        let slot = if self.free == NONE {
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
        match self.index.entry(key.hash(), |_| false, hasher) {
            Slot::Occupied(_) => {}
            Slot::Vacant(vacant) => {
                vacant.insert(slot);
            }
        }
        let floor = self.floor.marks.clone();
        self.add_marks(slot, &floor);
        slot
    }

    /// Entries are ordered by their last write and live equally long, so only the oldest can have expired. A few at
    /// a time keep up with any rate of insertion.
    fn expire(&mut self, now: Tick) {
        for _ in 0..2 {
            match self.entries.get(self.oldest as usize) {
                Some(entry) if entry.touched.0.saturating_add(self.ttl) <= now.0 => self.forget(self.oldest),
                _ => return,
            }
        }
    }

    /// Drops an entry and raises the floor to what it demanded.
    fn forget(&mut self, slot: u32) {
        self.unlink(slot);
        let entry = &mut self.entries[slot as usize];
        match entry.marks {
            Compact::None => {}
            Compact::At(position) => self.floor.raise(&[position]),
            // Without a loss: it is told to the session that suffered it, not to everybody.
            Compact::Spilled => self.floor.raise(self.spilled.remove(&slot).unwrap_or_default().positions()),
        }
        self.floor.held_until = self.floor.held_until.max(entry.held_until);
        if entry.unknown {
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
    const fn stamp(&self) -> Stamp {
        Stamp(self.unknown_count << 1 | 1)
    }

    fn raise(&mut self, positions: &[Position]) {
        positions.iter().for_each(|position| self.marks.add(Mark::At(*position)));
        if self.marks.is_unknown() {
            // Too many branches to keep them all.
            self.marks = std::mem::take(&mut self.marks).without_unknown();
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.unknown = true;
        self.unknown_count += 1;
    }

    fn settle(&mut self, stamp: Stamp, at: Option<Position>) {
        if let Some(at) = at {
            let outlived = |position: &&Position| position.cluster() != at.cluster() || position.epoch() >= at.epoch();
            self.marks = self.marks.positions().iter().filter(outlived).copied().map(Mark::At).collect();
        }
        if self.unknown && self.stamp() == stamp {
            self.unknown = false;
            at.into_iter().for_each(|at| self.marks.add(Mark::At(at)));
        } else if let Some(at) = at
            && !self.unknown
        {
            self.marks.add(Mark::At(at));
        }
    }
}

impl Tick {
    /// Rounded down: for "now".
    fn before(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX))
    }

    /// Rounded up: for deadlines.
    fn after(time: Duration) -> Self {
        Self(u32::try_from(time.as_nanos().div_ceil(100_000_000)).unwrap_or(u32::MAX))
    }

    fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 100)
    }
}

impl Default for LocalStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ryw_core::{ClusterId, Epoch};

    use super::*;

    fn key(n: u64) -> SubjectKey {
        // Spread as a hash would.
        let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&spread.to_le_bytes());
        SubjectKey::from_bytes(bytes)
    }

    fn at(offset: u64) -> Position {
        Position::new(ClusterId::new(1), Epoch::new(1), offset)
    }

    /// What subject `n` must see, its own marks and the floor's together.
    fn load(store: &LocalStore, n: u64) -> Loaded {
        let mut loaded = store.load(&[key(n)]).now().unwrap().unwrap();
        loaded.marks.join(&loaded.floor);
        loaded
    }

    fn join(store: &LocalStore, n: u64, marks: Marks, hold: Option<Duration>) {
        store.join(&[key(n)], &Update { marks, hold }).now().unwrap().unwrap();
    }

    /// A store whose floor has been settled at position 0.
    fn settled(capacity: usize, subjects: u64) -> LocalStore {
        let store = LocalStore::builder().capacity(capacity).build();
        for n in 0..subjects {
            let unsettled = load(&store, n).unsettled;
            store.settle(&unsettled, Some(at(0))).now().unwrap().unwrap();
        }
        store
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_store_knows_that_it_knows_nothing() {
        let store = LocalStore::new();
        let loaded = load(&store, 1);
        assert!(loaded.marks.is_unknown());
        store.settle(&loaded.unsettled, Some(at(70))).now().unwrap().unwrap();
        assert_eq!(load(&store, 1).marks, Marks::at(at(70)), "the floor is the sampled position");
        assert!(store.is_empty(), "and nobody got an entry for it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_evicted_mark_is_still_honoured() {
        let store = settled(1000, 3000);
        for n in 0..3000 {
            join(&store, n, Marks::at(at(n + 1)), None);
        }
        assert!(store.len() <= 1024, "{}", store.len());
        for n in 0..3000 {
            assert!(load(&store, n).marks.covers(&Marks::at(at(n + 1))), "mark {n} was dropped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_entry_written_longest_ago_goes_first() {
        let store = settled(1, 8);
        for n in [1, 2, 1, 3] {
            join(&store, n, Marks::at(at(n * 100)), None);
        }
        assert_eq!(store.len(), 1);
        assert_eq!(load(&store, 9).marks, Marks::at(at(200)), "the floor holds 1 and 2");
        assert_eq!(load(&store, 3).marks, Marks::at(at(300)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_mark_is_still_honoured_and_takes_no_room() {
        let store = LocalStore::builder().capacity(1).ttl(Duration::from_secs(10)).build();
        store.settle(&load(&store, 1).unsettled, Some(at(0))).now().unwrap().unwrap();
        join(&store, 1, Marks::at(at(500)), None);
        tokio::time::advance(Duration::from_millis(9900)).await;
        assert_eq!((load(&store, 1).marks, store.len()), (Marks::at(at(500)), 1));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!((load(&store, 1).marks, store.len()), (Marks::at(at(500)), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_pending_then_unknown_until_settled() {
        let store = settled(10, 1);
        let window = Duration::from_secs(2);
        join(&store, 0, Marks::unknown(), Some(window));
        assert!(load(&store, 0).marks.is_pending() && !load(&store, 0).marks.is_unknown());
        assert!(load(&store, 0).unsettled.is_empty(), "a write on its way can't be settled");
        tokio::time::advance(window + Duration::from_millis(100)).await;

        let loaded = load(&store, 0);
        assert!(!loaded.marks.is_pending() && loaded.marks.is_unknown());
        // Another unknown outcome comes in between: the sample is too old for it.
        join(&store, 0, Marks::unknown(), Some(window));
        store.settle(&loaded.unsettled, Some(at(5))).now().unwrap().unwrap();
        assert!(load(&store, 0).marks.is_pending());
        tokio::time::advance(window + Duration::from_millis(100)).await;
        let loaded = load(&store, 0);
        assert!(loaded.marks.is_unknown());
        store.settle(&loaded.unsettled, Some(at(9))).now().unwrap().unwrap();
        assert_eq!(load(&store, 0).marks, Marks::at(at(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn holds_and_unknowns_survive_eviction() {
        let store = settled(1, 2);
        join(&store, 0, Marks::unknown(), Some(Duration::from_secs(2)));
        join(&store, 1, Marks::at(at(3)), None);
        assert!(load(&store, 0).marks.is_pending(), "the floor is held");
        tokio::time::advance(Duration::from_millis(2100)).await;
        let loaded = load(&store, 0);
        assert!(loaded.marks.is_unknown());
        store.settle(&loaded.unsettled, Some(at(8))).now().unwrap().unwrap();
        assert_eq!(load(&store, 0).marks, Marks::at(at(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_positions_a_start_is_held_for_a_window() {
        let store = LocalStore::builder().held_at_start(Duration::from_secs(2)).build();
        assert!(load(&store, 1).marks.is_pending());
        tokio::time::advance(Duration::from_millis(2000)).await;
        assert!(load(&store, 1).marks.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn marks_of_several_epochs_are_kept_apart() {
        let store = settled(2, 1);
        let other = Position::new(ClusterId::new(1), Epoch::new(2), 5);
        join(&store, 0, Marks::at(at(9)), None);
        join(&store, 0, Marks::at(other), None);
        let expected: Marks = [Mark::At(at(9)), Mark::At(other)].into_iter().collect();
        assert_eq!(load(&store, 0).marks, expected);
        join(&store, 1, Marks::none(), None);
        join(&store, 2, Marks::none(), None);
        assert!(load(&store, 0).marks.covers(&expected), "also after eviction");
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_outlives_a_failover() {
        let store = settled(1, 2);
        join(&store, 0, Marks::at(at(900)), None);
        join(&store, 1, Marks::at(at(1)), None);
        let loaded = load(&store, 5);
        assert_eq!(loaded.marks, Marks::at(at(900)));
        // The new primary's history does not contain 900; nobody who asks now has written it.
        let now = Position::new(ClusterId::new(1), Epoch::new(2), 600);
        store.settle(&loaded.floored, Some(now)).now().unwrap().unwrap();
        assert_eq!(load(&store, 5).marks, Marks::at(now));
        assert_eq!(load(&store, 1).marks, Marks::at(at(1)), "a session's own marks stay as they are");
    }

    #[tokio::test(start_paused = true)]
    async fn more_branches_than_fit_are_unknown_until_settled() {
        let store = settled(1, 3);
        for epoch in 2..40 {
            join(&store, 0, Marks::at(Position::new(ClusterId::new(1), Epoch::new(epoch), 1)), None);
        }
        for n in [0, 9] {
            let loaded = load(&store, n);
            assert!(loaded.marks.is_unknown(), "{n}");
            store
                .settle(&loaded.unsettled, Some(Position::new(ClusterId::new(1), Epoch::new(40), 1)))
                .now()
                .unwrap()
                .unwrap();
            assert!(!load(&store, n).marks.is_unknown(), "{n}");
            join(&store, 1, Marks::none(), None);
        }
    }

    proptest! {
        /// Whatever is done to the store, it demands at least what a map that never forgets would.
        #[test]
        fn never_demands_less_than_an_unbounded_map(
            capacity in 1usize..20,
            steps in prop::collection::vec((0u64..40, 1u64..1000, 0u8..4, 0u64..4000), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let store = LocalStore::builder().capacity(capacity).ttl(Duration::from_secs(3)).build();
                let mut model: HashMap<u64, (Marks, Instant)> = HashMap::new();
                for (n, offset, kind, pause) in steps {
                    let known = model.entry(n).or_insert_with(|| (Marks::none(), Instant::now()));
                    match kind {
                        0 | 1 => {
                            join(&store, n, Marks::at(at(offset)), None);
                            known.0.add(Mark::At(at(offset)));
                        }
                        2 => {
                            let hold = Duration::from_secs(1);
                            join(&store, n, Marks::none(), Some(hold));
                            known.1 = known.1.max(Instant::now() + hold);
                        }
                        _ => tokio::time::advance(Duration::from_millis(pause)).await,
                    }
                    for (n, (marks, held_until)) in &model {
                        let loaded = load(&store, *n).marks;
                        assert!(loaded.covers(marks), "{n} must see {marks:?} but {loaded:?}");
                        assert!(loaded.is_pending() || *held_until <= Instant::now(), "the hold of {n} was dropped");
                    }
                }
            });
        }
    }
}
