//! The same, for tests of every interleaving.

use std::fmt;

pub(crate) use loom::sync::MutexGuard;

/// Locks as parking_lot's does: a panic elsewhere is not this one's business.
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// Where something may be done that blocks: everywhere.
pub(crate) struct Blocking;

impl Blocking {
    pub(crate) fn allowed() -> Option<Self> {
        Some(Self)
    }

    pub(crate) fn run(self, work: impl FnOnce() + Send + 'static) {
        loom::thread::spawn(work);
    }
}

/// Runs `scenario` in every interleaving in which threads are interrupted up to three times against their will. Most of what goes
/// wrong needs two.
#[cfg(test)]
pub(crate) fn interleave(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(scenario);
}
