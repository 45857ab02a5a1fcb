//! What was decided, second by second, for the last quarter of an hour.

use ryw_core::Reason;
use serde::Serialize;

pub(crate) const REASONS: usize = Reason::ALL.len();
/// How far back it goes.
pub(crate) const SECONDS: u64 = 15 * 60;

/// Requests by reason, and for each reason by replicas and by the primary.
pub(crate) type Counts = [[u32; 2]; REASONS];

#[derive(Debug)]
pub(crate) struct Series {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    seen: Seen,
}

/// What was seen in one second, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) counts: Counts,
    /// Requests whose level was not achieved, and was owed.
    pub(crate) unachieved: u32,
    /// Reads that were served as if they had brought no token, because nobody believes the one that they brought.
    pub(crate) unproven: u32,
    /// Answers that told of a loss.
    pub(crate) lost_told: u32,
    /// Reads that did not show what their session had to see.
    pub(crate) violations: u32,
    /// Writes of which nobody knows whether they were made.
    pub(crate) unknown_outcomes: u32,
}

/// One bar of the chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bar {
    /// Seconds from its end until now.
    pub(crate) ago: u64,
    /// Reason, by replicas, by the primary; those that occurred.
    pub(crate) counts: Vec<(&'static str, u32, u32)>,
}

impl Series {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Slot::default(); SECONDS as usize].into() }
    }

    /// Seconds are counted from 1.
    pub(crate) fn at(&mut self, second: u64) -> &mut Seen {
        let slot = &mut self.slots[(second % SECONDS) as usize];
        if slot.second != second {
            *slot = Slot { second, seen: Seen::default() };
        }
        &mut slot.seen
    }

    /// The sum of the last `seconds`, the current one included.
    pub(crate) fn sum(&self, now: u64, seconds: u64) -> Seen {
        let mut sum = Seen::default();
        // More would be met twice.
        let from = now.saturating_sub(seconds.min(SECONDS));
        for second in from + 1..=now {
            let slot = &self.slots[(second % SECONDS) as usize];
            if slot.second == second {
                sum.add(&slot.seen);
            }
        }
        sum
    }

    /// The last `seconds` in bars of `width` seconds, oldest first. The newest one is not over yet.
    pub(crate) fn bars(&self, now: u64, seconds: u64, width: u64) -> Vec<Bar> {
        let width = width.max(1);
        // Bars end at multiples of their width, so that what is over does not change any more.
        let end = now.next_multiple_of(width);
        let bars = (seconds / width).min(SECONDS);
        let bar = |back: u64| {
            let Some(end) = end.checked_sub(back * width) else { return Bar { ago: back * width, counts: Vec::new() } };
            let seen = self.sum(end, width.min(end));
            Bar { ago: back * width, counts: listed(&seen.counts) }
        };
        (0..bars).rev().map(bar).collect()
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *sum = sum.saturating_add(*more);
        }
        self.unachieved = self.unachieved.saturating_add(other.unachieved);
        self.unproven = self.unproven.saturating_add(other.unproven);
        self.lost_told = self.lost_told.saturating_add(other.lost_told);
        self.violations = self.violations.saturating_add(other.violations);
        self.unknown_outcomes = self.unknown_outcomes.saturating_add(other.unknown_outcomes);
    }
}

fn listed(counts: &Counts) -> Vec<(&'static str, u32, u32)> {
    let all = Reason::ALL.iter().zip(counts);
    all.filter(|(_, counts)| **counts != [0, 0])
        .map(|(reason, [replica, primary])| (reason.word(), *replica, *primary))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_quarter_of_an_hour_is_gone() {
        let mut series = Series::new();
        series.at(1).counts[0] = [3, 4];
        assert_eq!(series.sum(SECONDS, SECONDS).counts[0], [3, 4]);
        assert_eq!(series.sum(SECONDS + 1, SECONDS).counts[0], [0, 0]);
        series.at(SECONDS + 1).unachieved = 1;
        assert_eq!(series.sum(SECONDS + 1, SECONDS), Seen { unachieved: 1, ..Seen::default() });
    }

    #[test]
    fn bars_hold_each_second_once() {
        let mut series = Series::new();
        (1..=25).for_each(|second| series.at(second).counts[1][0] = 1);
        let bars = series.bars(25, 60, 10);
        let counts: Vec<_> = bars.iter().map(|bar| bar.counts.first().map_or(0, |(_, replica, _)| *replica)).collect();
        assert_eq!(counts, [0, 0, 0, 10, 10, 5]);
        assert_eq!(bars.iter().map(|bar| bar.ago).collect::<Vec<_>>(), [50, 40, 30, 20, 10, 0]);
    }
}
