//! A store that was away is found again by one task, which delivers what was kept before anybody else asks.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use ryw_core::{Marks, StoreError, StoreErrorKind, SubjectKey, Update};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Inner, State, doubt::EVERYBODY};

/// Between two tries to reach it, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Joins under way at a time.
const BATCH: usize = 64;
/// A doubt is held for a moment at least: a store tells by the time of it that there is a new one.
const DOUBT: Duration = Duration::from_millis(100);

impl Inner {
    /// Whether nobody asks it; sees to it that somebody looks for it then.
    pub(super) fn is_away(inner: &Arc<Self>, state: &mut State) -> bool {
        if state.away_since.is_some() && !state.is_sought {
            Self::seek(inner, state, Duration::ZERO);
        }
        state.away_since.is_some()
    }

    /// Nobody asks it any more until a task has found it again. The task ends then, or with the last request's layer.
    pub(super) fn went_away(inner: &Arc<Self>, error: &StoreError) {
        // Where one entry makes no sense, the others do.
        if error.kind() == StoreErrorKind::Corrupt {
            return;
        }
        let mut state = inner.state.lock();
        if state.away_since.is_none() {
            (state.away_since, state.tries) = (Some(Instant::now()), 0);
            Self::seek(inner, &mut state, FIRST_PAUSE);
            drop(state);
            tracing::warn!(%error, "the mark store is away: marks are unknown, and kept, until it is back");
        }
    }

    /// Without a runtime nobody looks for it, until somebody asks with one.
    fn seek(inner: &Arc<Self>, state: &mut State, pause: Duration) {
        if let Ok(runtime) = Handle::try_current() {
            state.is_sought = true;
            let seeker = Seeker { inner: Arc::downgrade(inner), has_found: false };
            drop(runtime.spawn(seeker.run(pause)));
        }
    }

    /// Whether the store answers, and has taken all that was kept.
    async fn is_back(self: &Arc<Self>) -> bool {
        self.state.lock().tries += 1;
        // It only has to answer.
        if self.in_time(self.store.load(&[EVERYBODY])).await.as_ref().is_err_and(is_away) {
            return false;
        }
        loop {
            let (batch, doubt) = {
                let mut state = self.state.lock();
                if state.backlog.is_settled() {
                    // Under one lock: nothing can be kept between this and the end of being away.
                    (state.away_since, state.is_sought) = (None, false);
                    state.news.expire();
                    break;
                }
                (state.backlog.first(BATCH), state.backlog.doubt)
            };
            let is_delivered = match doubt {
                // Whatever is missing comes before what is there: it may be the same subject's.
                Some(until) => self.tell_everybody(until).await,
                None => self.deliver(batch).await,
            };
            if !is_delivered {
                return false;
            }
        }
        if let Some(outbox) = &self.outbox {
            outbox.replace();
        }
        true
    }

    async fn deliver(self: &Arc<Self>, batch: Vec<(SubjectKey, Update)>) -> bool {
        let mut joins = JoinSet::new();
        for (key, update) in &batch {
            let (inner, join) = (Arc::clone(self), self.store.join(&[*key], update));
            joins.spawn(async move { inner.in_time(join).await });
        }
        let refused: Vec<_> = joins.join_all().await.into_iter().filter_map(Result::err).collect();
        if refused.iter().any(is_away) {
            return false;
        }
        let mut state = self.state.lock();
        state.backlog.dropped += refused.len() as u64;
        state.backlog.delivered(&batch);
        true
    }

    async fn tell_everybody(&self, until: Instant) -> bool {
        let hold = until.saturating_duration_since(Instant::now()).max(DOUBT);
        let update = Update { marks: Marks::unknown(), hold: Some(hold) };
        if self.in_time(self.store.join(&[EVERYBODY], &update)).await.as_ref().is_err_and(is_away) {
            return false;
        }
        let mut state = self.state.lock();
        // What has been dropped since is another doubt.
        if state.backlog.doubt == Some(until) {
            state.backlog.doubt = None;
        }
        true
    }
}

fn is_away(error: &StoreError) -> bool {
    error.kind() != StoreErrorKind::Corrupt
}

/// The one task that looks for the store. Where it is cut short, another one can start.
struct Seeker {
    inner: Weak<Inner>,
    has_found: bool,
}

impl Seeker {
    async fn run(mut self, first: Duration) {
        let mut pause = first;
        loop {
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(2 * pause).max(FIRST_PAUSE);
            let Some(inner) = self.inner.upgrade() else { return };
            if inner.is_back().await {
                self.has_found = true;
                tracing::info!("the mark store is back");
                return;
            }
        }
    }
}

impl Drop for Seeker {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade().filter(|_| !self.has_found) {
            inner.state.lock().is_sought = false;
        }
    }
}
