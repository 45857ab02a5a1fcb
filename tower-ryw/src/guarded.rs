//! A store that is not this process's own may be slow, or away. It costs a request its deadline once; after that, until it
//! is back, the answer is "can't be reached", at once.
//!
//! What this process has written itself it knows without asking, but that is not all there is: it only ever adds to what the
//! store says. Marks that the store did not take are kept here and delivered when it is back, before anybody believes again what it says.
//! Marks are joined, so it makes no difference how often and in which order they arrive.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use ryw_core::{
    Loaded, MarkStore, Marks, Position, Stamp, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::memory::LocalStore;

/// Between two tries to reach it, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Subjects whose marks are kept; those kept longest go first when there are more.
const CAPACITY: usize = 100_000;
/// Joins under way at a time while what was kept is delivered.
const BATCH: usize = 64;

/// A store, and what stands between it and the requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guarded(Arc<Inner>);

struct Inner {
    store: Arc<dyn MarkStore>,
    /// The writes of this process.
    own: LocalStore,
    deadline: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// It has failed; somebody tries to reach it again, and nobody else does.
    away_since: Option<Instant>,
    tries: u32,
    kept: HashMap<SubjectKey, Kept>,
    /// The same subjects, by their places in line.
    line: BTreeMap<u64, SubjectKey>,
    next_place: u64,
    dropped: u64,
}

/// What a subject's marks would have been joined with.
struct Kept {
    marks: Marks,
    held_until: Option<Instant>,
    since: Instant,
    place: u64,
}

/// How a store that was given to the layer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreHealth {
    /// For how long it has not answered; `None` while it does.
    pub away: Option<Duration>,
    /// How often it was tried again since then.
    pub tries: u32,
    /// Subjects whose marks wait to be delivered.
    pub backlog: usize,
    /// How long the oldest of them has waited.
    pub oldest: Option<Duration>,
    /// Subjects whose marks were dropped, because too many waited or the store could make nothing of its own entry.
    pub dropped: u64,
}

impl Guarded {
    pub(crate) fn new(store: Arc<dyn MarkStore>, own: LocalStore, deadline: Duration) -> Self {
        Self(Arc::new(Inner { store, own, deadline, state: Mutex::default() }))
    }

    pub(crate) fn own(&self) -> &LocalStore {
        &self.0.own
    }

    pub(crate) fn health(&self) -> StoreHealth {
        let state = self.0.state.lock();
        let oldest = state.line.first_key_value().and_then(|(_, key)| state.kept.get(key));
        let oldest = oldest.map(|kept| kept.since.elapsed());
        StoreHealth {
            away: state.away_since.map(|since| since.elapsed()),
            tries: state.tries,
            backlog: state.kept.len(),
            oldest,
            dropped: state.dropped,
        }
    }

    /// Asks the store, unless it is known to be away.
    fn ask<T: Unpin + Send + 'static>(
        &self,
        question: impl FnOnce(&dyn MarkStore) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        if self.0.state.lock().away_since.is_some() {
            return StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable));
        }
        match question(&*self.0.store).now() {
            Ok(Ok(answer)) => StoreFuture::ready(answer),
            Ok(Err(error)) => {
                Inner::went_away(&self.0, &error);
                StoreFuture::failed(error)
            }
            Err(answer) => {
                let inner = Arc::clone(&self.0);
                StoreFuture::boxed(async move {
                    let answer = inner.in_time(answer).await;
                    if let Err(error) = &answer {
                        Inner::went_away(&inner, error);
                    }
                    answer
                })
            }
        }
    }
}

impl Inner {
    async fn in_time<T: Unpin>(&self, answer: StoreFuture<T>) -> Result<T, StoreError> {
        match timeout(self.deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
        }
    }

    /// Nobody asks it any more until a task has found it again. The task ends then, or with the last request's layer.
    fn went_away(inner: &Arc<Self>, error: &StoreError) {
        // Where one entry makes no sense, the others do.
        if error.kind() == StoreErrorKind::Corrupt {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = inner.state.lock();
        if state.away_since.is_none() {
            (state.away_since, state.tries) = (Some(Instant::now()), 0);
            drop(state);
            tracing::warn!(%error, "the mark store is away: marks are unknown, and kept, until it is back");
            drop(runtime.spawn(come_back(Arc::downgrade(inner))));
        }
    }

    fn keep(inner: &Arc<Self>, keys: &[SubjectKey], update: &Update, error: &StoreError) {
        if error.kind() == StoreErrorKind::Corrupt {
            inner.state.lock().dropped += keys.len() as u64;
            return;
        }
        inner.state.lock().keep(keys, update);
        // It may have come back since it failed, and what is kept now would be kept for ever.
        Self::went_away(inner, error);
    }

    /// Whether the store answers, and has taken all that was kept.
    async fn is_back(self: &Arc<Self>) -> bool {
        self.state.lock().tries += 1;
        // Of nobody: it only has to answer.
        let question = self.store.load(&[SubjectKey::from_bytes([0; 16])]);
        if self.in_time(question).await.is_err() {
            return false;
        }
        loop {
            let batch: Vec<(SubjectKey, Update)> = {
                let state = self.state.lock();
                let batch = state.line.values().take(BATCH).filter_map(|key| Some((*key, state.kept.get(key)?)));
                batch.map(|(key, kept)| (key, kept.update())).collect()
            };
            if batch.is_empty() {
                // Looked at once more: nothing can be kept between this and the end of being away.
                let mut state = self.state.lock();
                if state.line.is_empty() {
                    state.away_since = None;
                    return true;
                }
                continue;
            }
            let mut joins = JoinSet::new();
            for (key, update) in &batch {
                let (inner, join) = (Arc::clone(self), self.store.join(&[*key], update));
                joins.spawn(async move { inner.in_time(join).await });
            }
            let is_away = |answer: &Result<(), StoreError>| {
                answer.as_ref().is_err_and(|error| error.kind() != StoreErrorKind::Corrupt)
            };
            if joins.join_all().await.iter().any(is_away) {
                return false;
            }
            self.state.lock().delivered(&batch);
        }
    }
}

impl State {
    /// The client knows that it is lost, and need not be told again when it is delivered.
    fn forget(&mut self, keys: &[SubjectKey], told: &Marks) {
        for key in keys {
            if let Some(kept) = self.kept.get_mut(key) {
                kept.marks = std::mem::take(&mut kept.marks).without(told);
            }
        }
    }

    fn keep(&mut self, keys: &[SubjectKey], update: &Update) {
        let State { kept, line, next_place, dropped, .. } = self;
        let now = Instant::now();
        let held_until = update.hold.map(|hold| now + hold);
        for key in keys {
            let entry = kept.entry(*key).or_insert_with(|| {
                let place = *next_place;
                line.insert(place, *key);
                *next_place += 1;
                Kept { marks: Marks::none(), held_until: None, since: now, place }
            });
            entry.marks.join(&update.marks);
            entry.held_until = entry.held_until.max(held_until);
            if kept.len() > CAPACITY
                && let Some((_, oldest)) = line.pop_first()
            {
                kept.remove(&oldest);
                *dropped += 1;
            }
        }
    }

    /// What has come since is delivered in its turn.
    fn delivered(&mut self, batch: &[(SubjectKey, Update)]) {
        for (key, update) in batch {
            let Some(kept) = self.kept.get_mut(key) else { continue };
            self.line.remove(&kept.place);
            if update.marks.covers(&kept.marks) && !kept.outlasts(update) {
                self.kept.remove(key);
            } else {
                kept.place = self.next_place;
                self.line.insert(self.next_place, *key);
                self.next_place += 1;
            }
        }
    }
}

impl Kept {
    fn update(&self) -> Update {
        let hold = self.held_until.map(|until| until.saturating_duration_since(Instant::now()));
        Update { marks: self.marks.clone(), hold: hold.filter(|hold| !hold.is_zero()) }
    }

    /// Whether it is held for longer than was delivered.
    fn outlasts(&self, delivered: &Update) -> bool {
        self.held_until.is_some_and(|until| until > Instant::now() + delivered.hold.unwrap_or_default())
    }
}

async fn come_back(inner: Weak<Inner>) {
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
        let Some(inner) = inner.upgrade() else { return };
        if inner.is_back().await {
            tracing::info!("the mark store is back");
            return;
        }
    }
}

impl MarkStore for Guarded {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        let own = self.0.own.own(keys);
        if own.marks.is_pending() {
            // The primary serves, whatever the others have written.
            return StoreFuture::ready(joined(own, Ok(Loaded::default())));
        }
        match self.ask(|store| store.load(keys)).now() {
            Ok(answer) => StoreFuture::ready(joined(own, answer)),
            Err(answer) => StoreFuture::boxed(async move { Ok(joined(own, answer.await)) }),
        }
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        // It is done when it returns.
        drop(self.0.own.join(keys, update));
        match self.ask(|store| store.join(keys, update)).now() {
            Ok(Ok(())) => StoreFuture::ready(()),
            Ok(Err(error)) => {
                Inner::keep(&self.0, keys, update, &error);
                StoreFuture::failed(error)
            }
            Err(answer) => {
                let (inner, keys, update) = (Arc::clone(&self.0), keys.to_vec(), update.clone());
                StoreFuture::boxed(async move {
                    let answer = answer.await;
                    if let Err(error) = &answer {
                        Inner::keep(&inner, &keys, &update, error);
                    }
                    answer
                })
            }
        }
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let (own, of_store): (Vec<_>, Vec<_>) = unsettled.iter().partition(|one| one.stamp.0 % 2 == 1);
        let untagged = |one: &Unsettled| Unsettled { stamp: Stamp(one.stamp.0 >> 1), ..*one };
        drop(self.0.own.settle(&own.into_iter().map(untagged).collect::<Vec<_>>(), at));
        if of_store.is_empty() {
            return StoreFuture::ready(());
        }
        let of_store: Vec<_> = of_store.into_iter().map(untagged).collect();
        self.ask(|store| store.settle(&of_store, at))
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        drop(self.0.own.acknowledge(keys, told));
        self.0.state.lock().forget(keys, told);
        self.ask(|store| store.acknowledge(keys, told))
    }
}

/// What both say. A tag in the lowest bit tells whose the stamps are: odd ones are of this process.
fn joined(own: Loaded, answer: Result<Loaded, StoreError>) -> Loaded {
    let incomplete = Loaded { marks: Marks::unknown(), incomplete: true, ..Loaded::default() };
    let mut loaded = answer.unwrap_or(incomplete);
    let tagged = |one: &Unsettled, tag| Unsettled { stamp: Stamp(one.stamp.0 << 1 | tag), ..*one };
    for one in loaded.unsettled.iter_mut().chain(&mut loaded.floored) {
        *one = tagged(one, 0);
    }
    loaded.unsettled.extend(own.unsettled.iter().map(|one| tagged(one, 1)));
    loaded.marks.join(&own.marks);
    loaded
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("store", &self.0.store).field("health", &self.health()).finish()
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch};

    use super::*;

    fn key(number: u64) -> SubjectKey {
        SubjectKey::from_bytes(u128::from(number).to_le_bytes())
    }

    fn at(offset: u64) -> Update {
        let position = Position::new(ClusterId::new(1), Epoch::new(1), offset);
        Update { marks: Marks::at(position), hold: None }
    }

    fn check(state: &State) {
        assert_eq!(state.line.len(), state.kept.len());
        assert!(state.line.iter().all(|(place, key)| state.kept[key].place == *place));
    }

    #[test]
    fn everybody_has_one_place_in_line() {
        let mut state = State::default();
        for number in (0..10).chain(5..10) {
            state.keep(&[key(number)], &at(number));
        }
        // Delivered, while one of them has got something new, and one was dropped.
        let batch: Vec<_> = (0..4).map(|number| (key(number), at(number))).collect();
        state.keep(&[key(2)], &at(99));
        let dropped = state.kept.remove(&key(3)).unwrap().place;
        state.line.remove(&dropped);
        state.delivered(&batch);
        check(&state);
        let left: Vec<_> = state.line.values().copied().collect();
        assert_eq!(left, [4, 5, 6, 7, 8, 9, 2].map(key), "what has come since is delivered in its turn");
    }

    #[test]
    fn those_who_have_waited_longest_go_first_when_there_are_too_many() {
        let mut state = State::default();
        let many = CAPACITY as u64 + 10;
        for number in 0..many {
            state.keep(&[key(number)], &at(number));
        }
        check(&state);
        assert_eq!((state.kept.len(), state.dropped), (CAPACITY, 10));
        assert!(!state.kept.contains_key(&key(9)) && state.kept.contains_key(&key(10)));
    }
}
