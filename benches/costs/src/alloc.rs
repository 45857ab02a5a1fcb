//! Counts what this program allocates: per thread, while it is asked to.

#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// What a thread has allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// How often it has asked for memory; growing a piece in place counts as well.
    pub count: u64,
    /// How many bytes it has asked for.
    pub bytes: u64,
    /// How many of them it holds on to: negative where it gave back more than it took.
    pub kept: i64,
}

thread_local! {
    static ALLOCATED: Cell<Option<Allocated>> = const { Cell::new(None) };
}

/// What `f` allocates on this thread.
pub fn allocated<R>(f: impl FnOnce() -> R) -> (Allocated, R) {
    let outer = ALLOCATED.replace(Some(Allocated::default()));
    let result = f();
    (ALLOCATED.replace(outer).unwrap_or_default(), result)
}

fn note(taken: usize, given_back: usize) {
    // Fails only while the thread ends.
    let _ = ALLOCATED.try_with(|allocated| {
        if let Some(Allocated { count, bytes, kept }) = allocated.get() {
            let kept = kept.saturating_add_unsigned(taken as u64).saturating_sub_unsigned(given_back as u64);
            allocated.set(Some(Allocated { count: count + u64::from(taken > 0), bytes: bytes + taken as u64, kept }));
        }
    });
}

// SAFETY: everything is the system allocator's; what is counted is a number of this thread that needs no memory itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size, layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_this_thread_takes_and_keeps() {
        let (counted, kept) = allocated(|| {
            drop(std::hint::black_box(Box::new(7_u64)));
            std::hint::black_box(vec![0_u8; 100])
        });
        assert_eq!(counted, Allocated { count: 2, bytes: 108, kept: 100 });
        let (counted, ()) = allocated(|| drop(kept));
        assert_eq!(counted, Allocated { count: 0, bytes: 0, kept: -100 });
    }
}
