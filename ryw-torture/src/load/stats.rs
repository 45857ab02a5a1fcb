//! What the load has seen, as counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::judge::Answer;

/// Counts of answers, growing while the load runs.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    by_primary: AtomicU64,
    by_replica: AtomicU64,
    writes: AtomicU64,
    unpromised: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
    cancelled: AtomicU64,
    resets: AtomicU64,
    /// How many calls took less than the power of two in microseconds that is the index.
    took: [AtomicU64; 32],
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Sums {
    pub(crate) by_primary: u64,
    pub(crate) by_replica: u64,
    /// Writes that were promised.
    pub(crate) writes: u64,
    /// Answers that said themselves that the level was not enforced.
    pub(crate) unpromised: u64,
    /// 409 and 503.
    pub(crate) refused: u64,
    /// Other errors.
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
    pub(crate) cancelled: u64,
    /// Answers that told of a loss.
    pub(crate) resets: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

impl Sums {
    /// Whether anybody had an answer that was a success and took nothing back.
    pub(crate) const fn is_answered(&self) -> bool {
        self.by_primary + self.by_replica + self.writes > 0
    }
}

impl Stats {
    pub(super) fn count(&self, answer: Option<&Answer>, write: bool, cancelled: bool, took: Duration) {
        let Some(answer) = answer else {
            (if cancelled { &self.cancelled } else { &self.unanswered }).fetch_add(1, Relaxed);
            return;
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took[(64 - micros.leading_zeros()).min(31) as usize].fetch_add(1, Relaxed);
        if answer.lost {
            self.resets.fetch_add(1, Relaxed);
        }
        let count = match (answer.status, answer.enforced, answer.replica) {
            (409 | 503, ..) => &self.refused,
            (..200 | 300.., ..) => &self.failed,
            (_, Some(false), _) => &self.unpromised,
            _ if write => &self.writes,
            (.., Some(true)) => &self.by_replica,
            _ => &self.by_primary,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn sums(&self) -> Sums {
        let of = |count: &AtomicU64| count.load(Relaxed);
        Sums {
            by_primary: of(&self.by_primary),
            by_replica: of(&self.by_replica),
            writes: of(&self.writes),
            unpromised: of(&self.unpromised),
            refused: of(&self.refused),
            failed: of(&self.failed),
            unanswered: of(&self.unanswered),
            cancelled: of(&self.cancelled),
            resets: of(&self.resets),
            p50_us: self.percentile(50),
            p99_us: self.percentile(99),
        }
    }

    fn percentile(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.took.iter().map(|count| count.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut below = 0;
        let at = counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        1 << at.unwrap_or(0)
    }
}

impl Sums {
    /// The share of replicas among reads that the layer has routed.
    pub(crate) fn replica_share(&self) -> f64 {
        self.by_replica as f64 / (self.by_replica + self.by_primary).max(1) as f64
    }

    /// The share of answers that promised nothing.
    pub(crate) fn unpromised_share(&self) -> f64 {
        let promised = self.by_primary + self.by_replica + self.writes;
        self.unpromised as f64 / (promised + self.unpromised).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_counts_once() {
        let stats = Stats::default();
        let ok = Answer { status: 200, enforced: Some(true), ..Answer::default() };
        let took = Duration::from_micros(700);
        for (answer, write) in [
            (Some(Answer { replica: Some(true), ..ok.clone() }), false),
            (Some(Answer { replica: Some(false), ..ok.clone() }), false),
            (Some(Answer { replica: Some(false), ..ok.clone() }), true),
            (Some(Answer { enforced: Some(false), ..ok.clone() }), true),
            (Some(Answer { status: 503, ..ok.clone() }), false),
            (Some(Answer { status: 502, lost: true, ..ok }), false),
            (None, false),
        ] {
            stats.count(answer.as_ref(), write, false, took);
        }
        stats.count(None, true, true, took);
        let sums = stats.sums();
        let counts = [sums.by_replica, sums.by_primary, sums.writes, sums.unpromised, sums.refused, sums.failed];
        assert_eq!(counts, [1; 6]);
        assert_eq!([sums.unanswered, sums.cancelled, sums.resets], [1; 3]);
        assert_eq!((sums.p50_us, sums.replica_share(), sums.unpromised_share()), (1024, 0.5, 0.25));
    }
}
