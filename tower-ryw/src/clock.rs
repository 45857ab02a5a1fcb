//! Times that mean something outside of this process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ryw_core::seeded;
use tokio::time::Instant;

/// Time since 1970, for what leaves this process or outlives it: the wall clock when this was made, and tokio's clock
/// since, so that it never jumps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    built_at: Duration,
    built: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall_clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { built_at: seeded::wall_clock().unwrap_or_else(wall_clock), built: Instant::now() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.built_at + self.age()
    }

    /// Time since this was made.
    pub(crate) fn age(&self) -> Duration {
        self.built.elapsed()
    }
}
