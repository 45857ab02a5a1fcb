//! How long requests took, in the last minute.

use std::time::Duration;

use serde::Serialize;

const SLICES: usize = 6;
const SLICE_SECONDS: u64 = 10;
/// Eight to each doubling, from a microsecond on: exact to 9 %.
const PER_DOUBLING: f64 = 8.0;
const BUCKETS: usize = 8 * 32;

/// The median and the 95th percentile of what was answered in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of the requests took no longer, in ms.
    pub p50_ms: f64,
    /// 95 % of the requests took no longer, in ms.
    pub p95_ms: f64,
    /// How many there were.
    pub count: u64,
}

#[derive(Debug)]
pub(crate) struct Latency {
    slices: Box<[Slice; SLICES]>,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    number: u64,
    counts: [u32; BUCKETS],
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { slices: Box::new([Slice { number: u64::MAX, counts: [0; BUCKETS] }; SLICES]) }
    }

    pub(crate) fn add(&mut self, second: u64, took: Duration) {
        let number = second / SLICE_SECONDS;
        let slice = &mut self.slices[(number % SLICES as u64) as usize];
        if slice.number != number {
            *slice = Slice { number, counts: [0; BUCKETS] };
        }
        let count = &mut slice.counts[bucket(took)];
        *count = count.saturating_add(1);
    }

    /// `None` when nothing was answered.
    pub(crate) fn percentiles(&self, second: u64) -> Option<Percentiles> {
        let newest = second / SLICE_SECONDS;
        let recent = |slice: &&Slice| newest.checked_sub(slice.number).is_some_and(|age| age < SLICES as u64);
        let mut sums = [0_u64; BUCKETS];
        for slice in self.slices.iter().filter(recent) {
            sums.iter_mut().zip(slice.counts).for_each(|(sum, count)| *sum += u64::from(count));
        }
        let count: u64 = sums.iter().sum();
        let at = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = sums.iter().position(|sum| {
                seen += sum;
                seen >= rank
            });
            found.map(upper_ms)
        };
        Some(Percentiles { p50_ms: at(50)?, p95_ms: at(95)?, count })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded down, and limited")]
fn bucket(took: Duration) -> usize {
    let micros = (took.as_secs_f64() * 1e6).max(1.0);
    ((micros.log2() * PER_DOUBLING) as usize).min(BUCKETS - 1)
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn upper_ms(bucket: usize) -> f64 {
    ((bucket + 1) as f64 / PER_DOUBLING).exp2() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_last_minute() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(0), None);
        for number in 1..=100 {
            latency.add(5, Duration::from_millis(number));
        }
        let now = latency.percentiles(59).unwrap();
        assert!((50.0..54.6).contains(&now.p50_ms) && (95.0..104.0).contains(&now.p95_ms), "{now:?}");
        assert_eq!(now.count, 100);
        assert_eq!(latency.percentiles(60), None);
        latency.add(60, Duration::from_secs(1));
        assert_eq!(latency.percentiles(60).map(|now| now.count), Some(1));
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_place() {
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }
}
