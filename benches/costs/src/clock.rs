//! The time that counts: a thread's own on a processor, so that whoever else is at work on this machine does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What this thread has had of the processors until now.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// ns of it for each of `count`.
pub fn each(count: u64, all: impl FnOnce()) -> f64 {
    let started = processor_time();
    all();
    (processor_time() - started).as_secs_f64() * 1e9 / count as f64
}
