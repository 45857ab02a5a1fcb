//! Many runs, on several threads.

use std::{
    ops::{ControlFlow, Range},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use ryw_core::seeded::Bug;

use crate::run::{Outcome, run};

/// Runs all these seeds, and tells `each` of every one, in the order in which they end, until it has seen enough.
pub fn many(
    seeds: Range<u64>,
    bug: Option<Bug>,
    threads: usize,
    mut each: impl FnMut(u64, Result<Outcome, String>) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(seeds.start);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let after = |seed: u64| (seed < seeds.end).then(|| seed + 1);
                    let Ok(seed) = next.fetch_update(Relaxed, Relaxed, after) else { return };
                    let outcome = run(seed, bug).map_err(|error| error.to_string());
                    if sender.send((seed, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, outcome) in receiver {
            if each(seed, outcome).is_break() {
                next.store(seeds.end, Relaxed);
            }
        }
    });
}
