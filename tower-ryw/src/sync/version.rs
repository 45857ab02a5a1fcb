//! Reading what others change, without a lock.

use std::hint;

#[cfg(interleavings)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(interleavings))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How often a reader looks again while there is a change.
const TRIES: u32 = if cfg!(interleavings) { 2 } else { 32 };

/// Tells readers whether what they have read has changed meanwhile: odd while there is a change, and two more after it.
///
/// What it guards is made of atomic numbers, so that a read that comes to nothing is wrong, but defined. Readers write nothing: any
/// number of them come through at the same time, and no writer waits for one. Writers keep each other out by a lock of their own. This is
/// a *seqlock*; its orderings are from H.-J. Boehm, "Can seqlocks get along with programming language memory models?" (2012).
pub(crate) struct Version(AtomicU64);

/// A change under way, until this is dropped.
pub(crate) struct Changing<'a> {
    version: &'a AtomicU64,
    before: u64,
}

impl Version {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// What `look` returned when nothing changed while it looked. It may have to look several times, and may see anything in those in
    /// vain. `None` where there was a change each time, or one that took as long as all of them: the writers' lock tells then.
    pub(crate) fn read<T>(&self, mut look: impl FnMut() -> T) -> Option<T> {
        for _ in 0..TRIES {
            let before = self.0.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = look();
                fence(Ordering::Acquire);
                if self.0.load(Ordering::Relaxed) == before {
                    return Some(seen);
                }
            }
            hint::spin_loop();
        }
        None
    }

    /// Begins a change. There must be no other one: whoever calls this holds the writers' lock, longer than what this returns.
    pub(crate) fn change(&self) -> Changing<'_> {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        Changing { version: &self.0, before }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.version.store(self.before.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use super::Version;

    #[test]
    fn what_changes_meanwhile_is_looked_at_again() {
        let version = Version::new();
        let mut looks = 0;
        let seen = version.read(|| {
            looks += 1;
            if looks == 1 {
                drop(version.change());
            }
            looks
        });
        assert_eq!(seen, Some(2));
    }

    #[test]
    fn nobody_looks_during_a_change() {
        let version = Version::new();
        let change = version.change();
        assert_eq!(version.read(|| unreachable!("it is being changed")), None::<()>);
        drop(change);
        assert_eq!(version.read(|| 7), Some(7));
    }
}

#[cfg(all(test, interleavings))]
mod interleavings {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
        thread,
    };

    use super::Version;
    use crate::sync::{Mutex, interleave};

    #[derive(Default)]
    struct Pair {
        version: Version,
        writers: Mutex<()>,
        halves: [AtomicU64; 2],
    }

    impl Pair {
        fn set(&self, value: u64) {
            let _alone = self.writers.lock();
            let _change = self.version.change();
            self.halves.iter().for_each(|half| half.store(value, Relaxed));
        }

        fn get(&self) -> Option<[u64; 2]> {
            self.version.read(|| [self.halves[0].load(Relaxed), self.halves[1].load(Relaxed)])
        }
    }

    impl Default for Version {
        fn default() -> Self {
            Self::new()
        }
    }

    #[test]
    fn halves_of_two_values_are_never_seen_together() {
        interleave(|| {
            let pair = Arc::new(Pair::default());
            let writer = {
                let pair = Arc::clone(&pair);
                thread::spawn(move || (1..3).for_each(|value| pair.set(value)))
            };
            if let Some([one, other]) = pair.get() {
                assert_eq!(one, other);
            }
            writer.join().unwrap();
            assert_eq!(pair.get(), Some([2, 2]), "and what was changed before is seen");
        });
    }

    #[test]
    fn writers_do_not_undo_each_other() {
        interleave(|| {
            let pair = Arc::new(Pair::default());
            let writers: Vec<_> = [1, 2]
                .map(|value| {
                    let pair = Arc::clone(&pair);
                    thread::spawn(move || pair.set(value))
                })
                .into();
            if let Some([one, other]) = pair.get() {
                assert_eq!(one, other);
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            assert!(matches!(pair.get(), Some([1, 1] | [2, 2])));
        });
    }
}
