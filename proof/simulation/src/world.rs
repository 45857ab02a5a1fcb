//! What all parts of one simulation share: the database, chance, the clock and the history.

use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use parking_lot::Mutex;
use ryw_core::seeded;

use crate::{database::Cluster, history::Histories};

/// One simulation. All of it runs on one thread, so that the lock is never waited for.
#[derive(Clone, Debug)]
pub(crate) struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) cluster: Cluster,
    pub(crate) rng: Rng,
    pub(crate) histories: Histories,
    /// What went wrong, and what every answer has said: for whoever looks into a red seed.
    pub(crate) answers: String,
    /// (service, node) that don't reach each other.
    pub(crate) cut_off: Vec<(usize, usize)>,
    /// The store forgets everything at its next request.
    pub(crate) wipe_store: bool,
    /// How often the store has been started or wiped.
    pub(crate) store_runs: u64,
    /// How long the store takes to answer.
    pub(crate) store_takes: Duration,
    /// When something last went wrong that may keep a mark from its place.
    pub(crate) disturbed: Option<Duration>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Wall clocks of services differ by so much, in seconds.
    pub(crate) skew: Vec<i64>,
    pub(crate) mailbox: Vec<crate::client::Letter>,
    pub(crate) running: usize,
    last: u64,
    next_value: i64,
}

impl World {
    pub(crate) fn new(cluster: Cluster, rng: Rng, services: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            cluster,
            rng,
            histories: Histories::default(),
            answers: String::new(),
            cut_off: Vec::new(),
            wipe_store: false,
            store_runs: 0,
            store_takes: Duration::ZERO,
            disturbed: None,
            faults: BTreeMap::new(),
            skew: vec![0; services],
            mailbox: Vec::new(),
            running: 0,
            last: 0,
            next_value: 0,
        })))
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Inner) -> R) -> R {
        look(&mut self.0.lock())
    }

    pub(crate) fn chance(&self, percent: u8) -> bool {
        self.with(|inner| inner.rng.u8(..100) < percent)
    }

    /// A few milliseconds.
    pub(crate) fn millis(&self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.with(|inner| inner.rng.u64(range)))
    }

    /// A value that nobody has written yet.
    pub(crate) fn value(&self) -> i64 {
        self.with(|inner| {
            inner.next_value += 1;
            inner.next_value
        })
    }

    /// The history's clock, in nanoseconds: no two readings are the same.
    pub(crate) fn time(&self) -> u64 {
        let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        self.with(|inner| {
            inner.last = now.max(inner.last + 1);
            inner.last
        })
    }

    /// Whether nothing has gone wrong since then that may keep a mark from its place.
    pub(crate) fn is_quiet_since(&self, since: Duration) -> bool {
        self.with(|inner| inner.disturbed.is_none_or(|last| last < since))
    }
}

impl Inner {
    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }
}

/// The simulation's time.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

thread_local! {
    static WALL_CLOCK: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Calls `build` with the wall clock of a service.
pub(crate) fn at_wall_clock<R>(skew: i64, build: impl FnOnce() -> R) -> R {
    seeded::set_wall_clock(|| WALL_CLOCK.get());
    let now = Duration::from_secs(1_800_000_000) + now();
    WALL_CLOCK.set(Some(seeded::ahead(now, skew)));
    let built = build();
    WALL_CLOCK.set(None);
    built
}
