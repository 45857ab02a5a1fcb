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
        let mut state = inner.state();
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
        if !is_away(error) {
            return;
        }
        let mut state = inner.state();
        state.is_catching_up = false;
        if state.away_since.is_none() {
            (state.away_since, state.tries) = (Some(Instant::now()), 0);
            let is_sought = mem::replace(&mut state.is_sought, true);
            drop(state);
            let because = std::error::Error::source(error).map(tracing::field::display);
            tracing::warn!(%error, because, "the mark store is away: marks are unknown, and kept, until it is back");
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
        self.state().tries += 1;
        // It only has to answer.
        if self.in_time(self.store.load(&[EVERYBODY])).await.as_ref().is_err_and(is_away) {
            return false;
        }
        let has_caught_up = self.catch_up().await;
        self.state().is_catching_up = false;
        if !has_caught_up {
            return false;
        }
        if let Some(outbox) = &self.outbox {
            outbox.replace();
        }
        true
    }

    async fn catch_up(self: &Arc<Self>) -> bool {
        loop {
            let (batch, doubt) = {
                let mut state = self.state();
                if state.backlog.is_settled() {
                    // Under one lock: nothing can be kept between this and the end of being away.
                    (state.away_since, state.is_sought) = (None, false);
                    state.news.expire();
                    return true;
                }
                state.is_catching_up = true;
                (state.backlog.first(BATCH), state.backlog.doubt)
            };
            // Whatever is missing comes before what is there: it may be the same subject's.
            if let Some(until) = doubt
                && !self.tell_everybody(until).await
            {
                return false;
            }
            // In the same turn, so that there is room: a doubt that is told is a new one as soon as something else is dropped.
            if !self.deliver(batch).await {
                return false;
            }
        }
    }

    /// What the store can make nothing of is passed over. Somebody may have been promised it, so it is missing.
    async fn deliver(self: &Arc<Self>, batch: Vec<(SubjectKey, Update)>) -> bool {
        let mut joins = JoinSet::new();
        for (key, update) in batch {
            let (inner, join) = (Arc::clone(self), self.store.join(&[key], &update));
            joins.spawn(async move { (inner.in_time(join).await, (key, update)) });
        }
        let answers = joins.join_all().await;
        let mut is_here = true;
        let mut state = self.state();
        for (answer, one) in answers {
            match answer {
                Ok(()) => {}
                Err(error) if error.kind() == StoreErrorKind::TooFewCopies => {}
                Err(error) if is_away(&error) => {
                    is_here = false;
                    continue;
                }
                Err(_) => state.backlog.is_missing(&one.1),
            }
            state.backlog.delivered(&[one]);
        }
        is_here
    }

    async fn tell_everybody(&self, until: Instant) -> bool {
        let hold = until.saturating_duration_since(Instant::now()).max(DOUBT);
        let update = Update { marks: Marks::unknown(), hold: Some(hold) };
        // Where it makes nothing of everybody's own entry, no instance gets an answer, and all marks are unknown anyhow.
        if self.in_time(self.store.join(&[EVERYBODY], &update)).await.as_ref().is_err_and(is_away) {
            return false;
        }
        let mut state = self.state();
        // What has been dropped since is another doubt.
        if state.backlog.doubt == Some(until) {
            state.backlog.doubt = None;
        }
        true
    }
}

fn is_away(error: &StoreError) -> bool {
    error.kind().is_outage()
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
            let mut state = inner.state();
            (state.is_sought, state.is_catching_up) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    };

    use parking_lot::Mutex;
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
            let is_sought = other.0.state().is_sought;
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { drop(other.load(&[EVERYBODY]).await) });
            let _ = ended.send((is_sought, other.0.state().is_sought));
        });
        let ended = has_ended.recv_timeout(Duration::from_secs(30));
        assert_eq!(ended, Ok((false, true)));
        assert_eq!(guarded.health().backlog, 1);
    }

    /// A store that answers in 5 ms, once it is back, and can make nothing of what it has for some subjects.
    #[derive(Debug, Default)]
    struct Slow {
        is_up: AtomicBool,
        broken: Vec<SubjectKey>,
        refused: Mutex<Vec<SubjectKey>>,
        joined: Mutex<Vec<SubjectKey>>,
    }

    impl Slow {
        fn answer<T: Default + Unpin + Send + 'static>(&self) -> StoreFuture<T> {
            if !self.is_up.load(Relaxed) {
                return failed();
            }
            StoreFuture::boxed(async {
                sleep(Duration::from_millis(5)).await;
                Ok(T::default())
            })
        }
    }

    impl MarkStore for Slow {
        fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
            self.answer()
        }
        fn join(&self, keys: &[SubjectKey], _: &Update) -> StoreFuture<()> {
            if self.is_up.load(Relaxed) && keys.iter().any(|key| self.broken.contains(key)) {
                return StoreFuture::failed(StoreError::new(StoreErrorKind::Corrupt));
            }
            if keys.iter().any(|key| self.refused.lock().contains(key)) {
                return failed();
            }
            self.joined.lock().extend(keys.iter().filter(|_| self.is_up.load(Relaxed)));
            self.answer()
        }
        fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
            self.answer()
        }
        fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
            self.answer()
        }
    }

    fn key(number: u64) -> SubjectKey {
        SubjectKey::from_bytes(u128::from(number).to_le_bytes())
    }

    fn held() -> Update {
        Update { marks: Marks::unknown(), hold: None }
    }

    /// With an outbox that has room for a few dozen subjects.
    fn small(store: &Arc<Slow>, directory: &std::path::Path) -> Guarded {
        let (log, recovered) = crate::outbox::Log::open(directory).unwrap();
        let disk = crate::guarded::Disk { log, recovered, capacity: 4096 };
        let store: Arc<dyn MarkStore> = Arc::<Slow>::clone(store);
        Guarded::new(store, LocalStore::new(), true, Duration::from_secs(1), Some(disk))
    }

    async fn is_found(guarded: &Guarded) -> bool {
        let found = async {
            while guarded.health().away.is_some() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.is_ok()
    }

    #[tokio::test]
    async fn a_store_that_is_back_is_found_while_writes_go_on_and_there_is_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Slow::default());
        let guarded = small(&store, directory.path());
        let writes = async {
            for number in 0_u64.. {
                drop(guarded.join(&[key(number)], &held()));
                sleep(Duration::from_millis(2)).await;
            }
        };
        let found = async {
            while !guarded.health().full {
                sleep(Duration::from_millis(20)).await;
            }
            store.is_up.store(true, Relaxed);
            is_found(&guarded).await
        };
        let found = tokio::select! {
            () = writes => false,
            found = found => found,
        };
        assert!(found, "{:?}", guarded.health());
        assert!(store.joined.lock().contains(&EVERYBODY), "nobody believes it before it was told what is missing");
    }

    #[tokio::test]
    async fn what_the_store_refuses_of_one_subject_is_everybodys_doubt() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Slow { broken: vec![key(1)], ..Slow::default() });
        let guarded = small(&store, directory.path());
        for number in 0..3 {
            assert!(guarded.join(&[key(number)], &held()).await.is_ok(), "it is on the disk");
        }
        store.is_up.store(true, Relaxed);
        assert!(is_found(&guarded).await, "one subject does not keep the store away: {:?}", guarded.health());
        let health = guarded.health();
        assert_eq!((health.dropped, health.backlog, health.full), (1, 0, false));
        let joined = store.joined.lock().clone();
        assert!(joined.contains(&key(0)) && joined.contains(&key(2)), "{joined:?}");
        assert!(joined.contains(&EVERYBODY), "somebody was promised it: {joined:?}");
    }

    #[tokio::test]
    async fn what_was_taken_is_done_where_the_rest_was_not() {
        let store = Arc::new(Slow { refused: Mutex::new(vec![key(1)]), ..Slow::default() });
        let given: Arc<dyn MarkStore> = Arc::<Slow>::clone(&store);
        let guarded = Guarded::new(given, LocalStore::new(), true, Duration::from_secs(1), None);
        for number in 0..3 {
            assert!(guarded.join(&[key(number)], &held()).await.is_err());
        }
        store.is_up.store(true, Relaxed);
        let delivered = async {
            while guarded.health().backlog > 1 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), delivered).await.unwrap();
        assert!(guarded.health().away.is_some());
        store.refused.lock().clear();
        assert!(is_found(&guarded).await, "{:?}", guarded.health());
        assert!(store.joined.lock().contains(&key(1)));
    }
}
