//! The only place of this module that reads the clock: servers are processes outside of it, so
//! their deadlines are wall time, never a runtime's paused time.

#![allow(clippy::disallowed_methods, reason = "blocking by design, see above")]

use std::{
    thread,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Sleeps for `step`, or says `false` if the deadline has passed.
    pub(super) fn sleep(&self, step: Duration) -> bool {
        let left = self.limit.saturating_sub(self.start.elapsed());
        thread::sleep(step.min(left));
        !left.is_zero()
    }
}
