//! Locks and threads of what is shared between requests, so that a test can put every interleaving of them in their place:
//! `RUSTFLAGS="--cfg interleavings"` makes them loom's.

#[cfg(interleavings)]
mod every;
mod version;

#[cfg(all(test, interleavings))]
pub(crate) use every::interleave;
#[cfg(interleavings)]
pub(crate) use every::{Blocking, Mutex, MutexGuard};
#[cfg(interleavings)]
pub(crate) use loom::sync::atomic::AtomicBool;
#[cfg(not(interleavings))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(interleavings))]
pub(crate) use std::sync::atomic::AtomicBool;
#[cfg(not(interleavings))]
use tokio::runtime::Handle;
pub(crate) use version::{Changing, Version};

/// Where something may be done that blocks.
#[cfg(not(interleavings))]
pub(crate) struct Blocking(Handle);

#[cfg(not(interleavings))]
impl Blocking {
    /// `None` outside of a runtime.
    pub(crate) fn allowed() -> Option<Self> {
        Handle::try_current().ok().map(Self)
    }

    /// Where the runtime ends first, `work` is dropped without having run.
    pub(crate) fn run(self, work: impl FnOnce() + Send + 'static) {
        drop(self.0.spawn_blocking(work));
    }
}
