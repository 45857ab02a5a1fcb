//! What requests see of it: what the store says, joined with what this process knows itself.

use std::sync::Arc;

use ryw_core::{
    Loaded, MarkStore, Marks, Position, Stamp, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
    seeded::{Bug, is_on},
};

use super::{Guarded, Inner, KeptIs, doubt::EVERYBODY};

impl MarkStore for Guarded {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        let own = self.0.own.own(keys);
        if own.marks.is_pending() && !self.0.tells_losses {
            // The primary serves, whatever the others have written. With positions, they may have lost something.
            return StoreFuture::ready(joined(own, Ok(Loaded::default())));
        }
        let Some(news) = Inner::unless_away(&self.0, |state| state.news.due()) else {
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
                        Ok(news) => inner.state.lock().news.learn(due, news).added_to(answer),
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
            self.0.state.lock().news.expire();
        }
        self.ask(|store| store.settle(&of_store, at))
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        drop(self.0.own.acknowledge(keys, told));
        self.0.state.lock().backlog.forget(keys, told);
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
