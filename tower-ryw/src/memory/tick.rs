//! Time as a store counts it.

use std::time::Duration;

/// Tenths of a second since the store was made: 13 years fit, and an entry stays small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u32);

impl Tick {
    /// Rounded down: for "now".
    pub(super) fn before(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX))
    }

    /// Rounded up: for deadlines.
    pub(super) fn after(time: Duration) -> Self {
        Self(u32::try_from(time.as_nanos().div_ceil(100_000_000)).unwrap_or(u32::MAX))
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 100)
    }
}
