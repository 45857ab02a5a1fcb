//! The local mark store: bounded, and it never forgets silently.
//!
//! Every bounded map forgets something under pressure. Here an entry that is evicted or expires raises its shard's
//! *floor* to what it demanded, and a subject that the shard does not know is held to that floor: forgetting can
//! cost a read a few milliseconds, never its guarantee. A new store starts with a floor that is *unknown*, because
//! whatever an earlier process remembered is gone; the first read that meets it has the primary's position sampled.

mod branches;
mod change;
mod chunks;
mod floor;
#[cfg(all(test, interleavings))]
mod interleavings;
#[cfg(test)]
mod readers;
mod shard;
mod table;
mod tick;
mod words;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ryw_core::{Loaded, MarkStore, Marks, Position, StoreFuture, SubjectKey, Unsettled, Update};
use tokio::time::Instant;

use crate::sync::AtomicBool;
use floor::Floor;
use shard::Shard;
use tick::Tick;

const SHARDS: usize = 64;

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
    /// Somebody answers, or has answered, for the time before the store was made.
    start_is_settled: AtomicBool,
    shards: Box<[Shard]>,
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

    /// How many subjects have a mark of their own. What has expired goes as the store is written to, and, up to a thousand for each of
    /// its 64 parts, when this is asked.
    #[must_use]
    pub fn len(&self) -> usize {
        let now = self.0.now();
        self.0.shards.iter().map(|shard| shard.len(now)).sum()
    }

    /// Whether no subject has a mark of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What these subjects' own entries say, without the floor. For a store that is [held](LocalStoreBuilder::held_at_start) at its
    /// start: of what came before, entries of others have to be told too.
    pub(crate) fn own(&self, keys: &[SubjectKey]) -> Loaded {
        let now = self.0.now();
        let mut loaded = Loaded::default();
        for key in keys {
            self.0.shard(key).load_own(key, now, &mut loaded);
        }
        loaded
    }

    /// Age of the mark that was written longest ago and has not expired, and the mean age of all, with a resolution of 100 ms.
    /// `None` when there is none. Takes time in proportion to the number of marks: for diagnostics.
    #[must_use]
    pub fn ages(&self) -> Option<(Duration, Duration)> {
        let now = self.0.now();
        let (mut count, mut sum, mut oldest) = (0, 0, 0);
        for shard in &self.0.shards {
            shard.ages(now, |age| {
                count += 1;
                sum += u64::from(age);
                oldest = oldest.max(age);
            });
        }
        (count > 0).then(|| (Tick(oldest).duration(), Duration::from_millis(sum * 100 / count)))
    }
}

impl LocalStoreBuilder {
    /// How many subjects to keep, at least 1. Default: 1 000 000, at 52 bytes each, and room for growth: up to an eighth more from
    /// some 100 000 on, in pieces of 13 kB for each of 64 parts below that.
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
            Start::Unknown => Floor::unknown(),
            Start::Held(window) => Floor::held_until(Tick::after(window)),
        };
        // No machine has room for more in one of them.
        let each = u32::try_from(capacity.div_ceil(shards)).unwrap_or(u32::MAX).min(u32::MAX / 2);
        let shard = |_| Shard::new(each, Tick::after(ttl), floor());
        LocalStore(Arc::new(Inner {
            started: Instant::now(),
            start_is_settled: AtomicBool::new(false),
            shards: (0..shards).map(shard).collect(),
        }))
    }
}

impl Inner {
    fn now(&self) -> Tick {
        Tick::before(self.started.elapsed())
    }

    fn shard(&self, key: &SubjectKey) -> &Shard {
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
            self.0.shard(key).load(key, now, &mut loaded);
        }
        StoreFuture::ready(loaded)
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        let now = self.0.now();
        let held_until = update.hold.map(|hold| Tick::after(self.0.started.elapsed().saturating_add(hold)));
        for key in keys {
            self.0.shard(key).join(key, now, &update.marks, held_until);
        }
        StoreFuture::ready(())
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let now = self.0.now();
        for Unsettled { key, stamp } in unsettled {
            self.0.shard(key).settle(key, *stamp, now, at);
        }
        if !unsettled.is_empty() && !self.0.start_is_settled.swap(true, Relaxed) {
            // Whatever the question was, it came after the start: the answer is late enough for what was written before.
            self.0.shards.iter().for_each(|shard| shard.settle_start(now, at));
        }
        StoreFuture::ready(())
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        for key in keys {
            self.0.shard(key).acknowledge(key, told);
        }
        StoreFuture::ready(())
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
mod tests;
