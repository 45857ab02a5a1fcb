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

/// It is time to ask.
#[derive(Debug)]
pub(super) struct Due;

impl News {
    /// What is known, or that it is the caller who has to ask.
    pub(super) fn due(&mut self) -> Result<Everybody, Due> {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now < asked + PERIOD) {
            return Ok(self.known.clone());
        }
        self.asked = Some(now);
        Err(Due)
    }

    pub(super) fn expire(&mut self) {
        self.asked = None;
    }

    pub(super) fn learn(&mut self, everybody: Loaded) -> Everybody {
        // Without an entry of its own it is held to a floor, and that says nothing about everybody.
        let has_entry = everybody.floored.is_empty() && !everybody.marks.is_none();
        if everybody.marks.is_unknown() || everybody.marks.is_pending() {
            self.expire();
        }
        self.known = Everybody(has_entry.then(|| Box::new(everybody)));
        self.known.clone()
    }
}

impl Everybody {
    /// Its positions are a floor: nobody has lost anything when they do not survive a failover.
    pub(super) fn added_to(self, answer: Result<Loaded, StoreError>) -> Result<Loaded, StoreError> {
        let Some(everybody) = self.0 else { return answer };
        let mut answer = answer?;
        let stamp = everybody.unsettled.first().map_or(Stamp::default(), |one| one.stamp);
        for position in everybody.marks.positions() {
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
        Ok(answer)
    }
}
