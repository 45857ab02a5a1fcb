//! A store that was away is found again by one task, which delivers what was kept before anybody else asks.

use std::{
    mem,
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
    /// What `ask` makes of the state; `None` while nobody asks the store. Somebody looks for it then.
    pub(super) fn unless_away<R>(inner: &Arc<Self>, ask: impl FnOnce(&mut State) -> R) -> Option<R> {
        let mut state = inner.state.lock();
        if state.away_since.is_none() {
            return Some(ask(&mut state));
        }
        let is_sought = mem::replace(&mut state.is_sought, true);
        drop(state);
        if !is_sought {
            Self::seek(inner, Duration::ZERO);
        }
        None
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
            let is_sought = mem::replace(&mut state.is_sought, true);
            drop(state);
            tracing::warn!(%error, "the mark store is away: marks are unknown, and kept, until it is back");
            if !is_sought {
                Self::seek(inner, FIRST_PAUSE);
            }
        }
    }

    /// Without a runtime, or with one that is about to end, nobody looks for it until somebody asks again. Never under the
    /// lock: such a runtime drops the task at once, and that takes it.
    fn seek(inner: &Arc<Self>, pause: Duration) {
        let seeker = Seeker { inner: Arc::downgrade(inner), has_found: false };
        if let Ok(runtime) = Handle::try_current() {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ryw_core::{Loaded, MarkStore, Position, StoreFuture, Unsettled};

    use super::*;
    use crate::{guarded::Guarded, memory::LocalStore};

    /// A store that fails at once.
    #[derive(Debug)]
    struct Dead;

    fn failed<T>() -> StoreFuture<T> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }

    impl MarkStore for Dead {
        fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
            failed()
        }
        fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
            failed()
        }
        fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
            failed()
        }
        fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
            failed()
        }
    }

    struct JoinsWhenDropped(Guarded);

    impl Drop for JoinsWhenDropped {
        fn drop(&mut self) {
            drop(self.0.join(&[EVERYBODY], &Update::default()));
        }
    }

    #[test]
    fn a_runtime_that_ends_takes_the_search_with_it_and_the_next_one_goes_on() {
        let guarded = Guarded::new(Arc::new(Dead), LocalStore::new(), true, Duration::from_secs(1), None);
        let (ended, has_ended) = mpsc::channel();
        let other = guarded.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let dropped = JoinsWhenDropped(other.clone());
            runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(dropped);
            });
            // What a task leaves behind while the runtime ends is searched for by nobody.
            drop(runtime);
            let is_sought = other.0.state.lock().is_sought;
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { drop(other.load(&[EVERYBODY]).await) });
            let _ = ended.send((is_sought, other.0.state.lock().is_sought));
        });
        let ended = has_ended.recv_timeout(Duration::from_secs(30));
        assert_eq!(ended, Ok((false, true)));
        assert_eq!(guarded.health().backlog, 1);
    }
}
