//! A store that is not this process's own may be slow, or away. It costs a request its deadline once; after that, until it
//! is back, the answer is "can't be reached", at once.
//!
//! What this process has written itself it knows without asking, but that is not all there is: it only ever adds to what the
//! store says. Marks that the store did not take are kept here, on disk where there is an outbox, and delivered when it is
//! back, before anybody believes again what it says. Marks are joined, so it makes no difference how often and in which order
//! they arrive.
//!
//! What can't be kept makes everybody's marks *unknown*: [`doubt`] is how other instances learn that.

mod backlog;
mod delivery;
mod doubt;
mod store;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Weak,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use ryw_core::{MarkStore, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Update};
use tokio::time::{Instant, timeout};

use crate::{
    clock::Clock,
    memory::LocalStore,
    outbox::{Log, Outbox, OutboxHealth, Recovered, Undelivered},
};
use backlog::{Backlog, held, read_back};
use doubt::News;

/// After so much time without an answer it is asked for one, where somebody wants to know.
const SILENCE: Duration = Duration::from_secs(1);

/// A store, and what stands between it and the requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guarded(Arc<Inner>);

struct Inner {
    store: Arc<dyn MarkStore>,
    /// The writes of this process.
    own: LocalStore,
    /// There are positions, so what the store knows may be lost.
    tells_losses: bool,
    deadline: Duration,
    clock: Clock,
    outbox: Option<Outbox>,
    started: Instant,
    /// When it has last answered, in ms after the start, and one more; 0 is never.
    heard_at: AtomicU64,
    /// Until then, in ms after the start, reads need nothing of the state: the store is there, and holds nobody to more than each
    /// to their own.
    quiet_until: AtomicU64,
    state: Mutex<State>,
}

/// The state, for one who may change it.
struct Held<'a> {
    inner: &'a Inner,
    state: MutexGuard<'a, State>,
}

struct State {
    /// It has failed; somebody tries to reach it again, and nobody else does.
    away_since: Option<Instant>,
    is_sought: bool,
    /// It answers again, and is told what was kept. Nobody believes it yet, but it takes what is joined: what would be kept
    /// meanwhile might never come to an end.
    is_catching_up: bool,
    tries: u32,
    backlog: Backlog,
    news: News,
}

/// What a mark is worth that is kept for the store on a disk.
#[derive(Clone, Copy, Debug)]
enum KeptIs {
    Enough,
    TooLate,
}

/// An outbox that was opened.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) log: Log,
    pub(crate) recovered: Recovered,
    /// The largest that the file may become, in bytes.
    pub(crate) capacity: u64,
}

/// How a store that was given to the layer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreHealth {
    /// How long ago it has last answered; `None` when it never has. Nobody asks it while there are no requests, see
    /// [`RywLayer::ask_store`](crate::RywLayer::ask_store).
    pub heard: Option<Duration>,
    /// For how long it has not answered; `None` while it does.
    pub away: Option<Duration>,
    /// How often it was tried again since then.
    pub tries: u32,
    /// Subjects whose marks wait to be delivered.
    pub backlog: usize,
    /// How long the oldest of them has waited; the time of an earlier process counts.
    pub oldest: Option<Duration>,
    /// Subjects whose marks were dropped since the layer was built, because there was no room or the store could make
    /// nothing of its own entry. Those that were kept before are everybody's doubt.
    pub dropped: u64,
    /// Something could not be kept. Until the store has been told so, everybody's marks are unknown here.
    pub full: bool,
    /// The size of the outbox's file in bytes; 0 without an [outbox](crate::RywLayerBuilder::outbox).
    pub outbox_bytes: u64,
    /// The outbox's file could not be written when that was last tried: what has come since is kept in memory only.
    pub outbox_failed: bool,
}

impl Guarded {
    pub(crate) fn new(
        store: Arc<dyn MarkStore>,
        own: LocalStore,
        tells_losses: bool,
        deadline: Duration,
        disk: Option<Disk>,
    ) -> Self {
        let clock = Clock::start();
        let (state, log) = match disk {
            None => (State::new(u64::MAX), None),
            Some(Disk { log, recovered, capacity }) => {
                // A file is replaced when it is full, so half of it at most is what has to stay.
                let mut state = State::new(capacity / 2);
                state.recover(&recovered, &own, &clock);
                (state, Some((log, capacity)))
            }
        };
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let live = Weak::clone(inner);
            let write = move |bytes: &mut _| live.upgrade().map(|inner| inner.write_down(bytes));
            let outbox = log.map(|(log, capacity)| Outbox::new(log, capacity, write));
            let (started, heard_at, quiet_until) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
            let state = Mutex::new(state);
            Inner { store, own, tells_losses, deadline, clock, outbox, started, heard_at, quiet_until, state }
        });
        // Delivered at once, where there is a runtime already.
        Inner::unless_away(&inner, |_| ());
        Self(inner)
    }

    /// The marks of this process alone.
    pub(crate) fn own(&self) -> &LocalStore {
        &self.0.own
    }

    pub(crate) fn health(&self) -> StoreHealth {
        let OutboxHealth { bytes, has_failed } = self.0.outbox.as_ref().map(Outbox::health).unwrap_or_default();
        let state = self.0.state();
        StoreHealth {
            heard: self.0.heard(),
            away: state.away_since.map(|since| since.elapsed()),
            tries: state.tries,
            backlog: state.backlog.len(),
            oldest: state.backlog.oldest().map(|since| since.elapsed()),
            dropped: state.backlog.dropped,
            full: state.backlog.doubt.is_some(),
            outbox_bytes: bytes,
            outbox_failed: has_failed,
        }
    }

    /// Asks something that changes nothing, unless it has answered within the last second, or is sought already.
    pub(crate) async fn ask_if_silent(&self) {
        if self.0.heard().is_none_or(|ago| ago >= SILENCE) {
            // What becomes of it is remembered; marks of everybody are as good as any.
            drop(self.ask(|store| store.load(&[doubt::EVERYBODY])).await);
        }
    }

    /// Joins into the store itself: what it does not take is not kept.
    pub(crate) fn share(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        self.ask(|store| store.join(keys, update))
    }

    /// Asks the store, unless it is known to be away.
    fn ask<T: Unpin + Send + 'static>(
        &self,
        question: impl FnOnce(&dyn MarkStore) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        match Inner::unless_away(&self.0, |_| ()) {
            Some(()) => self.answer(question(&*self.0.store)),
            None => StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable)),
        }
    }

    /// As [`join`](MarkStore::join), and fails unless the store itself has taken it: what is kept is only going to arrive.
    pub(crate) fn join_itself(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        self.put(keys, update, KeptIs::TooLate)
    }

    fn put(&self, keys: &[SubjectKey], update: &Update, kept_is: KeptIs) -> StoreFuture<()> {
        // It is done when it returns.
        drop(self.0.own.join(keys, update));
        let is_catching_up = self.0.state().is_catching_up;
        let taken = match is_catching_up {
            true => self.answer(self.0.store.join(keys, update)),
            false => self.ask(|store| store.join(keys, update)),
        };
        match taken.now() {
            Ok(Ok(())) => StoreFuture::ready(()),
            Ok(Err(error)) => Inner::keep(&self.0, keys, update, error, kept_is),
            Err(taken) => {
                let (inner, keys, update) = (Arc::clone(&self.0), keys.to_vec(), update.clone());
                StoreFuture::boxed(async move {
                    match taken.await {
                        Ok(()) => Ok(()),
                        Err(error) => Inner::keep(&inner, &keys, &update, error, kept_is).await,
                    }
                })
            }
        }
    }

    /// The answer in time, or none of the following.
    fn answer<T: Unpin + Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
        match answer.now() {
            Ok(Ok(answer)) => {
                self.0.has_answered();
                StoreFuture::ready(answer)
            }
            Ok(Err(error)) => {
                Inner::went_away(&self.0, &error);
                StoreFuture::failed(error)
            }
            Err(answer) => {
                let inner = Arc::clone(&self.0);
                StoreFuture::boxed(async move {
                    let answer = inner.in_time(answer).await;
                    match &answer {
                        Ok(_) => inner.has_answered(),
                        Err(error) => Inner::went_away(&inner, error),
                    }
                    answer
                })
            }
        }
    }
}

impl State {
    fn new(max_bytes: u64) -> Self {
        let (backlog, news) = (Backlog::new(max_bytes), News::default());
        Self { away_since: None, is_sought: false, is_catching_up: false, tries: 0, backlog, news }
    }

    /// What an earlier process was not able to deliver is delivered before the store is believed.
    fn recover(&mut self, recovered: &Recovered, own: &LocalStore, clock: &Clock) {
        let Recovered { entries, in_doubt } = recovered;
        for entry in entries {
            let (update, since) = read_back(entry, clock);
            // They are done when they return.
            drop(own.join(&entry.keys, &update));
            self.backlog.restore(&entry.keys, &update, since);
        }
        if *in_doubt {
            self.backlog.doubt = self.backlog.doubt.max(Some(Instant::now()));
        }
        if !self.backlog.is_settled() {
            self.away_since = Some(Instant::now());
            tracing::info!(subjects = self.backlog.len(), in_doubt, "the outbox has marks that were not delivered");
        }
    }
}

impl Inner {
    fn state(&self) -> Held<'_> {
        Held { inner: self, state: self.state.lock() }
    }

    /// Whether a read needs nothing of the state, which all requests share.
    fn is_quiet(&self) -> bool {
        self.started.elapsed() < Duration::from_millis(self.quiet_until.load(Acquire))
    }

    fn heard(&self) -> Option<Duration> {
        let heard_at = Duration::from_millis(self.heard_at.load(Relaxed).checked_sub(1)?);
        Some(self.started.elapsed().saturating_sub(heard_at))
    }

    fn has_answered(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        // All answers come here: who has heard nothing new does not write.
        if self.heard_at.load(Relaxed) <= now {
            self.heard_at.fetch_max(now + 1, Relaxed);
        }
    }

    async fn in_time<T: Unpin>(&self, answer: StoreFuture<T>) -> Result<T, StoreError> {
        match timeout(self.deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
        }
    }

    /// Keeps what the store did not take. The answer is good when it is on a disk.
    fn keep(
        inner: &Arc<Self>,
        keys: &[SubjectKey],
        update: &Update,
        error: StoreError,
        kept_is: KeptIs,
    ) -> StoreFuture<()> {
        let (had_room, is_told) = {
            let mut state = inner.state();
            match error.kind() {
                // Where one entry makes no sense, the others do.
                StoreErrorKind::Corrupt => {
                    state.backlog.dropped += keys.len() as u64;
                    return StoreFuture::failed(error);
                }
                // It has it, and that is as much as there is to deliver.
                StoreErrorKind::TooFewCopies => return StoreFuture::failed(error),
                _ => {}
            }
            let was_in_doubt = state.backlog.doubt.is_some();
            (state.backlog.keep(keys, update), was_in_doubt)
        };
        // It may have come back since it failed, and what is kept now would be kept for ever.
        Self::went_away(inner, &error);
        let Some(outbox) = &inner.outbox else { return StoreFuture::failed(error) };
        if !had_room {
            // So that a process after this one knows that something is missing. Once is enough: it is no small file.
            if !is_told {
                outbox.replace();
            }
            return StoreFuture::failed(error);
        }
        let hold = update.hold.map(|length| held(length, &inner.clock));
        let entry = Undelivered { keys: keys.to_vec(), marks: update.marks.clone(), since: inner.clock.now(), hold };
        let written = outbox.append(&entry, inner.deadline);
        StoreFuture::boxed(async move {
            match (written.await, kept_is) {
                (true, KeptIs::Enough) => Ok(()),
                _ => Err(error),
            }
        })
    }

    /// For the outbox: all that is kept, and whether something is missing.
    fn write_down(&self, bytes: &mut Vec<u8>) -> bool {
        let mut place = Some(0);
        while let Some(from) = place {
            let (some, next) = self.state().backlog.written_down(from, &self.clock);
            some.iter().for_each(|entry| entry.write(bytes));
            place = next;
        }
        self.state().backlog.doubt.is_some()
    }
}

impl Deref for Held<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let until = if self.state.away_since.is_none() { self.state.news.nothing_until() } else { None };
        let until = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(self.inner.started));
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        if self.inner.quiet_until.load(Relaxed) != until {
            self.inner.quiet_until.store(until, Release);
        }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("store", &self.0.store).field("health", &self.health()).finish()
    }
}
