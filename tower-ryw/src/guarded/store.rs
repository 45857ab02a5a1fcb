//! What requests see of it: what the store says, joined with what this process knows itself.

use std::sync::Arc;

use ryw_core::{
    Loaded, MarkStore, Marks, Position, Stamp, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
    seeded::{Bug, is_on},
};

use super::{
    Guarded, Inner, KeptIs,
    doubt::{EVERYBODY, Everybody},
};

impl MarkStore for Guarded {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        let own = self.0.own.own(keys);
        if own.marks.is_pending() && !self.0.tells_losses {
            // The primary serves, whatever the others have written. With positions, they may have lost something.
            return StoreFuture::ready(joined(own, Ok(Loaded::default())));
        }
        let news = match self.0.is_quiet() {
            true => Some(Ok(Everybody::default())),
            false => Inner::unless_away(&self.0, |state| state.news.due()),
        };
        let Some(news) = news else {
            return StoreFuture::ready(joined(own, Err(StoreError::new(StoreErrorKind::Unavailable))));
        };
        let answer = self.answer(self.0.store.load(keys));
        match (news, answer.now()) {
            (Ok(news), Ok(answer)) => StoreFuture::ready(joined(own, news.added_to(answer))),
            (Ok(news), Err(answer)) => StoreFuture::boxed(async move { Ok(joined(own, news.added_to(answer.await))) }),
            (Err(due), answer) => {
                let news = self.answer(self.0.store.load(&[EVERYBODY]));
                let inner = Arc::clone(&self.0);
                StoreFuture::boxed(async move {
                    let answer = async move {
                        match answer {
                            Ok(answer) => answer,
                            Err(answer) => answer.await,
                        }
                    };
                    let (answer, news) = tokio::join!(answer, news);
                    let answer = match news {
                        Ok(news) => inner.state().news.learn(due, news).added_to(answer),
                        Err(error) => Err(error),
                    };
                    Ok(joined(own, answer))
                })
            }
        }
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        self.put(keys, update, KeptIs::Enough)
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let (own, of_store): (Vec<_>, Vec<_>) = unsettled.iter().partition(|one| one.stamp.0 % 2 == 1);
        let untagged = |one: &Unsettled| Unsettled { stamp: Stamp(one.stamp.0 >> 1), ..*one };
        drop(self.0.own.settle(&own.into_iter().map(untagged).collect::<Vec<_>>(), at));
        if of_store.is_empty() {
            return StoreFuture::ready(());
        }
        let of_store: Vec<_> = of_store.into_iter().map(untagged).collect();
        if of_store.iter().any(|one| one.key == EVERYBODY) {
            self.0.state().news.expire();
        }
        self.ask(|store| store.settle(&of_store, at))
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        drop(self.0.own.acknowledge(keys, told));
        self.0.state().backlog.forget(keys, told);
        self.ask(|store| store.acknowledge(keys, told))
    }
}

/// What both say. A tag in the lowest bit tells whose the stamps are: odd ones are of this process.
fn joined(own: Loaded, answer: Result<Loaded, StoreError>) -> Loaded {
    let incomplete = Loaded { marks: Marks::unknown(), incomplete: true, ..Loaded::default() };
    let mut loaded = answer.unwrap_or(if is_on(Bug::StoreOpen) { Loaded::default() } else { incomplete });
    let tagged = |one: &Unsettled, tag| Unsettled { stamp: Stamp(one.stamp.0 << 1 | tag), ..*one };
    for one in loaded.unsettled.iter_mut().chain(&mut loaded.floored) {
        *one = tagged(one, 0);
    }
    loaded.unsettled.extend(own.unsettled.iter().map(|one| tagged(one, 1)));
    loaded.marks.join(&own.marks);
    loaded
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicBool, Ordering::Relaxed},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use super::*;
    use crate::memory::LocalStore;

    /// Knows of nobody, but where everybody is in doubt.
    #[derive(Debug, Default)]
    struct Store {
        is_away: AtomicBool,
        is_in_doubt: AtomicBool,
    }

    impl Store {
        fn answer<T>(&self, answer: T) -> StoreFuture<T> {
            match self.is_away.load(Relaxed) {
                true => StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable)),
                false => StoreFuture::ready(answer),
            }
        }
    }

    impl MarkStore for Store {
        fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
            let doubt = Loaded { marks: Marks::unknown(), has_entry: true, ..Loaded::default() };
            let is_doubt = keys.contains(&EVERYBODY) && self.is_in_doubt.load(Relaxed);
            self.answer(if is_doubt { doubt } else { Loaded::default() })
        }
        fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
            self.answer(())
        }
        fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
            self.answer(())
        }
        fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
            self.answer(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_all_is_well_reads_need_nothing_that_they_share() {
        let store = Arc::new(Store::default());
        let given: Arc<dyn MarkStore> = Arc::<Store>::clone(&store);
        let guarded = Guarded::new(given, LocalStore::new(), true, Duration::from_secs(1), None);
        let key = SubjectKey::from_bytes([1; 16]);
        let read = || async { guarded.load(&[key]).await.unwrap() };
        assert!(!guarded.0.is_quiet(), "nobody has asked yet");
        assert!(read().await.marks.is_none() && guarded.0.is_quiet());
        {
            let (sender, answer) = mpsc::channel();
            let reader = guarded.clone();
            let _held = guarded.0.state();
            thread::spawn(move || sender.send(reader.load(&[key]).now().is_ok()));
            assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(true), "it waits for the state");
        }

        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!guarded.0.is_quiet(), "it is time to ask again");
        store.is_in_doubt.store(true, Relaxed);
        assert!(read().await.marks.is_unknown() && !guarded.0.is_quiet(), "it may be settled at any moment");
        store.is_in_doubt.store(false, Relaxed);
        assert!(read().await.marks.is_none() && guarded.0.is_quiet());

        store.is_away.store(true, Relaxed);
        assert!(read().await.incomplete && !guarded.0.is_quiet(), "it is away");
        store.is_away.store(false, Relaxed);
        while guarded.health().away.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!guarded.0.is_quiet(), "somebody may have told it something meanwhile");
        assert!(read().await.marks.is_none() && guarded.0.is_quiet());
    }
}
