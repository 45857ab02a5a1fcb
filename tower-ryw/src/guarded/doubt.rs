//! What everybody is held to, in the store: how an instance that could not keep a mark tells the others that they don't know
//! everything.
//!
//! It is one more subject, which becomes *unknown* then, and is settled like any other: by the next read's sample of the
//! primary, which contains whatever was not kept, or, without positions, once the window has passed. An instance asks for it
//! along with a load: once a second, and each time until it is settled.

use std::time::Duration;

use ryw_core::{Loaded, Mark, Stamp, StoreError, SubjectKey, Unsettled};
use tokio::time::Instant;

/// Nobody's keyed hash, but for one in 2^128.
pub(super) const EVERYBODY: SubjectKey = SubjectKey::from_bytes([u8::MAX; 16]);
/// How old news may be.
const PERIOD: Duration = Duration::from_secs(1);

/// What everybody is held to, as the store said a moment ago.
#[derive(Debug, Default)]
pub(super) struct News {
    known: Everybody,
    asked: Option<Instant>,
}

/// Everybody's own entry; `None` while nothing was ever missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Everybody(Option<Box<Loaded>>);

/// It is time to ask, as of then.
#[derive(Debug)]
pub(super) struct Due(Instant);

impl News {
    /// What is known, or that the caller has to ask. Until it has an answer others have to as well: it may never wait for one.
    pub(super) fn due(&self) -> Result<Everybody, Due> {
        let now = Instant::now();
        match self.asked {
            Some(asked) if now < asked + PERIOD => Ok(self.known.clone()),
            _ => Err(Due(now)),
        }
    }

    /// Until when nobody has to ask, where there is nothing about everybody.
    pub(super) fn nothing_until(&self) -> Option<Instant> {
        self.asked.filter(|_| self.known.0.is_none()).map(|asked| asked + PERIOD)
    }

    pub(super) fn expire(&mut self) {
        self.asked = None;
    }

    pub(super) fn learn(&mut self, Due(asked): Due, everybody: Loaded) -> Everybody {
        // Without an entry of its own it is held to a floor, and that says nothing about everybody.
        let has_entry = everybody.has_entry;
        let is_open = everybody.marks.is_unknown() || everybody.marks.is_pending();
        let learned = Everybody(has_entry.then(|| Box::new(everybody)));
        // An answer to an earlier question may come later.
        if self.asked < Some(asked) {
            self.asked = Some(asked).filter(|_| !is_open || !has_entry);
            self.known = learned.clone();
        }
        learned
    }
}

impl Everybody {
    /// Its positions are a floor: nobody has lost anything when they do not survive a failover.
    pub(super) fn added_to(self, answer: Result<Loaded, StoreError>) -> Result<Loaded, StoreError> {
        let Some(everybody) = self.0 else { return answer };
        let mut answer = answer?;
        let stamp = everybody.unsettled.first().map_or(Stamp::default(), |one| one.stamp);
        // Where one store has an entry and another one has none, it is held to a floor as well.
        for position in everybody.marks.positions().iter().chain(everybody.floor.positions()) {
            answer.floor.add(Mark::At(*position));
        }
        if everybody.marks.is_unknown() {
            answer.marks.add(Mark::Unknown);
        }
        if everybody.marks.is_pending() {
            answer.marks.add(Mark::Pending);
        }
        answer.unsettled.extend(everybody.unsettled.iter().copied());
        answer.floored.push(Unsettled { key: EVERYBODY, stamp });
        answer.floored.extend(everybody.floored.iter().copied());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::Marks;

    use super::*;

    fn entry(marks: Marks) -> Loaded {
        Loaded { marks, has_entry: true, ..Loaded::default() }
    }

    fn is_held(everybody: Everybody) -> bool {
        !everybody.added_to(Ok(Loaded::default())).unwrap().marks.is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn news_are_good_for_a_second_unless_they_are_bad() {
        let mut news = News::default();
        let due = news.due().unwrap_err();
        assert!(news.due().is_err(), "whoever asks may never have an answer");
        assert!(!is_held(news.learn(due, Loaded::default())));
        assert!(!is_held(news.due().unwrap()));
        tokio::time::advance(PERIOD).await;
        let due = news.due().unwrap_err();
        assert!(is_held(news.learn(due, entry(Marks::unknown()))));
        assert!(news.due().is_err(), "it may be settled at any moment");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_earlier_question_replaces_nothing() {
        let mut news = News::default();
        let early = news.due().unwrap_err();
        tokio::time::advance(PERIOD / 2).await;
        let late = news.due().unwrap_err();
        let position = ryw_core::Position::new(ryw_core::ClusterId::new(1), ryw_core::Epoch::new(1), 7);
        news.learn(late, entry(Marks::at(position)));
        news.learn(early, Loaded::default());
        let held = news.due().unwrap().added_to(Ok(Loaded::default())).unwrap();
        assert_eq!((held.floor, held.marks), (Marks::at(position), Marks::none()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_no_entry_is_not_everybody() {
        let mut news = News::default();
        let floored = Unsettled { key: EVERYBODY, stamp: Stamp(1) };
        let due = news.due().unwrap_err();
        let floored = Loaded { floored: [floored].into_iter().collect(), has_entry: false, ..entry(Marks::unknown()) };
        assert!(!is_held(news.learn(due, floored)));
        assert!(!is_held(news.due().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_in_one_of_several_stores_is_heard() {
        for marks in [Marks::unknown(), Marks::pending()] {
            let mut news = News::default();
            let floored = Unsettled { key: EVERYBODY, stamp: Stamp(1) };
            let due = news.due().unwrap_err();
            // As two stores say together, of which one has missed it.
            let merged = Loaded { floored: [floored].into_iter().collect(), ..entry(marks) };
            assert!(is_held(news.learn(due, merged)));
            assert!(news.due().is_err(), "it may be settled at any moment");
        }
    }
}
