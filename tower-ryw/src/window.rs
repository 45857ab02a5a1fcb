//! How long a write is taken to be on its way where its position is not known.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Delays that are remembered, and for how long.
const MAX_DELAYS: usize = 1024;
const MEMORY: Duration = Duration::from_secs(60);
/// Fewer measurements than this say nothing about a quantile.
const MIN_DELAYS: usize = 20;
/// Measurements under way that are remembered; more are not started.
const MAX_UNDER_WAY: usize = 1024;

/// A window that follows the measured delay from commit to visibility, for stores that can't tell their position.
///
/// Whoever knows the store measures: writes a heartbeat to the primary, starts a [`Measurement`] at its commit, and
/// finishes it when *all* replicas show the heartbeat. The window is the 99th percentile of the last minute's delays
/// times two, within the bounds; a measurement that is under way counts with its age already, so a sudden lag widens the
/// window while it lasts, and not only afterwards. With fewer than 20 measurements in the last minute, the upper bound
/// holds.
///
/// A window stays a guess: a write that takes longer than it to become visible is not covered. Where the store has
/// positions, use those.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_ryw::ConfigError> {
/// use std::time::Duration;
/// use tower_ryw::{AdaptiveWindow, RywLayer};
///
/// let window = AdaptiveWindow::new(Duration::from_millis(100), Duration::from_secs(10));
/// let layer = RywLayer::builder().adaptive_window(window.clone()).build()?;
///
/// // In a task that writes a heartbeat several times a second:
/// let measurement = window.start();
/// // ... until every replica shows it ...
/// measurement.visible();
/// assert_eq!(window.current(), Duration::from_secs(10), "not enough is known yet");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct AdaptiveWindow(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    min: Duration,
    max: Duration,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// When it was measured, and what.
    delays: VecDeque<(Instant, Duration)>,
    under_way: BTreeMap<u64, Instant>,
    next_id: u64,
    /// Of `delays`, at the time of the last measurement.
    quantile: Option<Duration>,
}

/// One delay that is being measured. Dropping it without a result leaves it out.
#[derive(Debug)]
#[must_use]
pub struct Measurement {
    window: AdaptiveWindow,
    /// `None` when there were too many already.
    started: Option<(u64, Instant)>,
}

impl AdaptiveWindow {
    /// A window that is never shorter than `min`, which must be positive, and never longer than `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self(Arc::new(Inner { min, max: max.max(min), measured: Mutex::default() }))
    }

    /// Something has been committed now.
    pub fn start(&self) -> Measurement {
        let mut measured = self.0.measured.lock();
        let started = (measured.under_way.len() < MAX_UNDER_WAY).then(|| {
            let started = (measured.next_id, Instant::now());
            measured.next_id += 1;
            measured.under_way.insert(started.0, started.1);
            started
        });
        drop(measured);
        Measurement { window: self.clone(), started }
    }

    /// How long a write that is made now is taken to be on its way.
    #[must_use]
    pub fn current(&self) -> Duration {
        let now = Instant::now();
        let measured = self.0.measured.lock();
        // The oldest is the first: ids grow with time.
        let under_way =
            measured.under_way.first_key_value().map(|(_, started)| now.saturating_duration_since(*started));
        let up_to_date = measured.delays.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) <= MEMORY);
        let quantile = measured.quantile.filter(|_| up_to_date);
        drop(measured);
        match quantile {
            Some(quantile) => (quantile.max(under_way.unwrap_or_default()) * 2).clamp(self.0.min, self.0.max),
            None => self.0.max,
        }
    }

    /// The shortest that it can get.
    pub(crate) fn min(&self) -> Duration {
        self.0.min
    }

    /// The longest that it can get.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.max
    }

    fn finish(&self, id: u64, delay: Option<Duration>) {
        let now = Instant::now();
        let mut measured = self.0.measured.lock();
        measured.under_way.remove(&id);
        let Some(delay) = delay else { return };
        measured.delays.push_back((now, delay));
        while measured.delays.len() > MAX_DELAYS
            || measured.delays.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > MEMORY)
        {
            measured.delays.pop_front();
        }
        measured.quantile = quantile(&measured.delays);
    }
}

/// The 99th percentile by nearest rank.
fn quantile(delays: &VecDeque<(Instant, Duration)>) -> Option<Duration> {
    if delays.len() < MIN_DELAYS {
        return None;
    }
    let mut sorted: Vec<Duration> = delays.iter().map(|(_, delay)| *delay).collect();
    let rank = (sorted.len() * 99).div_ceil(100) - 1;
    Some(*sorted.select_nth_unstable(rank).1)
}

impl Measurement {
    /// It is visible on all replicas now.
    pub fn visible(mut self) {
        if let Some((id, started)) = self.started.take() {
            self.window.finish(id, Some(started.elapsed()));
        }
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        if let Some((id, _)) = self.started.take() {
            self.window.finish(id, None);
        }
    }
}

/// The window of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Window {
    Fixed(Duration),
    Adaptive(AdaptiveWindow),
}

impl Window {
    /// For a write that is made now.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Fixed(window) => *window,
            Self::Adaptive(window) => window.current(),
        }
    }

    /// For a write that was made at a time when the window may have been longer.
    pub(crate) fn longest(&self) -> Duration {
        match self {
            Self::Fixed(window) => *window,
            Self::Adaptive(window) => window.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    async fn measure(window: &AdaptiveWindow, delay: Duration) {
        let measurement = window.start();
        tokio::time::advance(delay).await;
        measurement.visible();
    }

    #[tokio::test(start_paused = true)]
    async fn follows_what_is_measured_within_its_bounds() {
        let window = AdaptiveWindow::new(50 * MS, 5000 * MS);
        for _ in 0..MIN_DELAYS - 1 {
            measure(&window, 100 * MS).await;
        }
        assert_eq!(window.current(), 5000 * MS, "too little is known");
        measure(&window, 100 * MS).await;
        assert_eq!(window.current(), 200 * MS);
        for _ in 0..400 {
            measure(&window, 10 * MS).await;
        }
        // 20 of 420 took 100 ms.
        assert_eq!(window.current(), 200 * MS, "the slowest one of a hundred counts");
        for _ in 0..MAX_DELAYS {
            measure(&window, 10 * MS).await;
        }
        assert_eq!(window.current(), 50 * MS, "not below the lower bound");
        for _ in 0..MAX_DELAYS {
            measure(&window, 4000 * MS).await;
        }
        assert_eq!(window.current(), 5000 * MS, "not above the upper bound");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lag_counts_while_it_lasts() {
        let window = AdaptiveWindow::new(50 * MS, 5000 * MS);
        for _ in 0..MIN_DELAYS {
            measure(&window, 100 * MS).await;
        }
        let stuck = window.start();
        tokio::time::advance(700 * MS).await;
        assert_eq!(window.current(), 1400 * MS);
        drop(stuck);
        assert_eq!(window.current(), 200 * MS, "given up: nothing is known of it");
        tokio::time::advance(MEMORY + MS).await;
        assert_eq!(window.current(), 5000 * MS, "what was measured long ago says nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn measurements_are_bounded() {
        let window = AdaptiveWindow::new(MS, 5000 * MS);
        let many: Vec<_> = (0..MAX_UNDER_WAY + 10).map(|_| window.start()).collect();
        assert_eq!(window.0.measured.lock().under_way.len(), MAX_UNDER_WAY);
        many.into_iter().for_each(Measurement::visible);
        assert!(window.0.measured.lock().under_way.is_empty());
        assert_eq!(window.0.measured.lock().delays.len(), MAX_DELAYS);
    }
}
