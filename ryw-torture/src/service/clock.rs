//! A wall clock that is wrong.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// In seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Lets the layers that are built from now on believe in a wall clock that is so many seconds ahead.
pub(super) fn set_ahead(seconds: i64) {
    AHEAD.store(seconds, Relaxed);
    ryw_core::seeded::set_wall_clock(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let ahead = AHEAD.load(Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) }
    });
}
