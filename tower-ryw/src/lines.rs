//! How often a line may be logged: what happens to every request must not be told with every request.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// At most [`MAX_LINES`](Self::MAX_LINES) lines of a kind per second: for those that differ.
#[derive(Debug)]
pub(crate) struct LineLimit {
    started: Instant,
    /// The second in the upper half, the lines of that second in the lower.
    written: AtomicU64,
}

impl Default for LineLimit {
    fn default() -> Self {
        Self { started: Instant::now(), written: AtomicU64::new(0) }
    }
}

impl LineLimit {
    const MAX_LINES: u32 = 100;

    pub(crate) fn may_write(&self) -> bool {
        self.may_write_at(u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX))
    }

    fn may_write_at(&self, second: u32) -> bool {
        let second = u64::from(second) << 32;
        let count = |written: u64| {
            if written & !u64::from(u32::MAX) != second {
                return Some(second | 1);
            }
            (written < second + u64::from(Self::MAX_LINES)).then_some(written + 1)
        };
        self.written.fetch_update(Relaxed, Relaxed, count).is_ok()
    }
}

/// A time in which something goes wrong again and again: told when it begins, every ten seconds with how often it has happened,
/// and when it has not happened for as long. For what is the same each time.
#[derive(Debug, Default)]
pub(crate) struct Spell {
    /// Whether there is one, for those whose things go well.
    lasts: AtomicBool,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    /// When it was last told of.
    told: Instant,
    last: Instant,
    untold: u64,
    all: u64,
}

/// What there is to tell of a [`Spell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Begins,
    /// It has happened so often since it was last told of.
    GoesOn(u64),
}

impl Spell {
    const PERIOD: Duration = Duration::from_secs(10);

    /// It has happened.
    pub(crate) fn happened(&self) -> Option<News> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else {
            *state = Some(State { told: now, last: now, untold: 0, all: 1 });
            self.lasts.store(true, Relaxed);
            return Some(News::Begins);
        };
        (state.last, state.untold, state.all) = (now, state.untold + 1, state.all + 1);
        (now - state.told >= Self::PERIOD).then(|| {
            state.told = now;
            News::GoesOn(std::mem::take(&mut state.untold))
        })
    }

    /// The same went well. Returns how often it had happened, once it is over.
    pub(crate) fn went_well(&self) -> Option<u64> {
        if !self.lasts.load(Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        let ended = state.take_if(|state| state.last.elapsed() >= Self::PERIOD)?;
        self.lasts.store(false, Relaxed);
        Some(ended.all)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[test]
    fn lines_are_limited_per_second() {
        let log = LineLimit::default();
        let written = |second| (0..1000).filter(|_| log.may_write_at(second)).count();
        assert_eq!([written(1), written(1), written(2)], [100, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spell_is_told_when_it_begins_now_and_then_and_when_it_is_over() {
        let spell = Spell::default();
        assert_eq!(spell.went_well(), None, "there was none");
        assert_eq!(spell.happened(), Some(News::Begins));
        for _ in 0..9 {
            advance(Duration::from_secs(1)).await;
            assert_eq!((spell.happened(), spell.went_well()), (None, None));
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!(spell.happened(), Some(News::GoesOn(10)));
        advance(Duration::from_millis(9999)).await;
        assert_eq!(spell.went_well(), None, "one that goes well in between ends nothing");
        advance(Duration::from_millis(1)).await;
        assert_eq!((spell.went_well(), spell.went_well()), (Some(11), None));
        assert_eq!(spell.happened(), Some(News::Begins), "another one");
    }
}
