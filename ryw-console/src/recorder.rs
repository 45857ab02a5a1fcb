//! What the page remembers.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use ryw_core::Lost;
use tokio::time::Instant;
use tower_ryw::{Checked, Observe, Recorded, Routed, Source, SpotCheck};

use crate::{
    decisions::{Decision, Decisions, Kept, SessionSum},
    latency::{Latency, Percentiles},
    series::{Bar, Seen, Series},
};

/// Remembers the last decisions of a layer: 2000 of them, and for a quarter of an hour how many there were of each kind.
/// Give a clone to [`RywLayerBuilder::observer`](tower_ryw::RywLayerBuilder::observer). Cheap to clone; some 500 KiB.
///
/// It costs a request one short lock. Reads that are passed through, having no session and asking for no node, are not seen by it.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    started_at: Duration,
    /// Names of sessions are kept as hashes that nobody else can make.
    names: RandomState,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    decisions: Decisions,
    series: Series,
    reads: Latency,
    writes: Latency,
}

impl Recorder {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let memory = Memory {
            decisions: Decisions::default(),
            series: Series::new(),
            reads: Latency::new(),
            writes: Latency::new(),
        };
        Self(Arc::new(Inner {
            started: Instant::now(),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            names: RandomState::new(),
            memory: Mutex::new(memory),
        }))
    }

    /// How long reads took that were answered in the last minute; `None` when there were none.
    #[must_use]
    pub fn reads(&self) -> Option<Percentiles> {
        self.0.memory.lock().reads.percentiles(self.second())
    }

    /// How long writes took that were answered in the last minute; `None` when there were none.
    #[must_use]
    pub fn writes(&self) -> Option<Percentiles> {
        self.0.memory.lock().writes.percentiles(self.second())
    }

    pub(crate) fn sum(&self, seconds: u64) -> Seen {
        self.0.memory.lock().series.sum(self.second(), seconds)
    }

    pub(crate) fn bars(&self, seconds: u64, width: u64) -> Vec<Bar> {
        self.0.memory.lock().series.bars(self.second(), seconds, width)
    }

    pub(crate) fn sessions(&self, limit: usize) -> Vec<SessionSum> {
        self.0.memory.lock().decisions.sessions(limit)
    }

    /// `session`: the tag of a session, or its name.
    pub(crate) fn decisions(&self, limit: usize, session: Option<&str>, primary_reads: bool) -> Vec<Decision> {
        let session = session.map(|session| (session, self.0.names.hash_one(session)));
        self.0.memory.lock().decisions.last(limit, session, primary_reads)
    }

    pub(crate) fn kept(&self) -> Kept {
        self.0.memory.lock().decisions.kept()
    }

    /// How long ago it was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Since 1970.
    pub(crate) fn now(&self) -> Duration {
        self.0.started_at + self.uptime()
    }

    /// Counted from 1.
    fn second(&self) -> u64 {
        self.uptime().as_secs() + 1
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Observe for Recorder {
    fn routed(&self, event: &Routed<'_>) {
        let name = event.session_name.map(|name| self.0.names.hash_one(name.as_str()));
        let (second, now) = (self.second(), self.now());
        let mut memory = self.0.memory.lock();
        let seen = memory.series.at(second);
        let count = &mut seen.counts[event.reason as usize][usize::from(event.primary)];
        *count = count.saturating_add(1);
        if !event.achieved {
            let missed = if event.proven { &mut seen.unachieved } else { &mut seen.unproven };
            *missed = missed.saturating_add(1);
        }
        let latency = if event.read { &mut memory.reads } else { &mut memory.writes };
        latency.add(second, event.took);
        memory.decisions.push(event, now, name);
    }

    fn recorded(&self, event: Recorded, _source: Source) {
        if event == Recorded::UnknownOutcome {
            let second = self.second();
            let mut memory = self.0.memory.lock();
            let count = &mut memory.series.at(second).unknown_outcomes;
            *count = count.saturating_add(1);
        }
    }

    fn checked(&self, event: &SpotCheck<'_>) {
        if event.found == Checked::Violation {
            let second = self.second();
            let mut memory = self.0.memory.lock();
            let count = &mut memory.series.at(second).violations;
            *count = count.saturating_add(1);
        }
    }

    fn lost_told(&self, _lost: Lost) {
        let second = self.second();
        let mut memory = self.0.memory.lock();
        let count = &mut memory.series.at(second).lost_told;
        *count = count.saturating_add(1);
    }
}
