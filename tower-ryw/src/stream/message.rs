//! One message of a stream.

use std::future::Future;

use ryw_core::{Lost, Reason};
use tracing::{Instrument, Span};

use crate::{
    context::{Known, RywContext, Scope, WithContext},
    decide::Route,
    future::{Announced, Guard, conclude},
    outcome::{Outcome, Told},
    policy::Intent,
    trace,
};

/// One message of a [`RywStream`](super::RywStream): decided as a request is, and ended by [`finish`](Self::finish).
///
/// Dropped before that, it has ended as a request that was cut short: if it may have written, its session is marked with
/// an unknown outcome. When it certainly has not, say so first, with [`RywContext::mark_not_written`].
#[derive(Debug)]
#[must_use = "a message that is dropped counts as cut short: call `finish`"]
pub struct RywMessage {
    // Dropped first, so that the mark is made before anything else goes.
    guard: Guard,
    context: RywContext,
    outer: RywContext,
    known: Known,
    span: Span,
}

/// What there is to tell of a message that has been served and recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivered {
    /// What the session must see from here on, when the client does not know all of it yet; what `Ryw-Token` would say.
    pub token: Option<String>,
    /// Who has served it.
    pub route: Route,
    /// Why.
    pub reason: Reason,
    /// Whether the level was achieved, as `X-Consistency-Enforced` would say.
    pub enforced: bool,
    /// What the session has lost, as `Ryw-Lost` would say.
    pub lost: Option<Lost>,
}

impl RywMessage {
    pub(super) fn new(
        outer: RywContext,
        known: Known,
        mut scope: Scope,
        announced: Option<Announced>,
        span: Span,
    ) -> Self {
        // Made already: only requests without marks have a context that is not.
        let context = scope.context().unwrap_or_else(|| outer.clone());
        context.belongs_to(&outer);
        let guard = Guard::announced(span.clone(), scope, announced);
        Self { guard, context, outer, known, span }
    }

    /// The message's own context: its route, its marks, and what a data layer and a handler can say of it.
    #[must_use]
    pub const fn context(&self) -> &RywContext {
        &self.context
    }

    /// The same future, with the message as the [current](RywContext::current) context: pools follow its route.
    pub fn scope<F: Future>(&self, future: F) -> WithContext<F> {
        self.context.scope(future)
    }

    /// The message has been served: records what it has written and, at MONOTONIC and above, what it has shown. Once this
    /// returns, the session's next request sees it, wherever it goes.
    ///
    /// It waits for the primary's position and for the mark store up to their deadlines, and never fails: what could not be
    /// done is in the answer, and is careful. Dropped meanwhile, the message has ended with an unknown outcome.
    pub async fn finish(mut self) -> Delivered {
        let intent = self.context.identity().terms.intent;
        let ended = self.context.end();
        let found = match (ended.told, intent) {
            (Told::NotWritten, _) | (Told::Nothing, Intent::Read) => Outcome::NotWritten,
            (Told::Written, _) | (Told::Nothing, Intent::Write) => Outcome::Committed,
        };
        let saved = match conclude(&self.context, ended, found, true, self.guard.was_held()) {
            Ok(saved) => saved,
            Err(work) => {
                let saved = work.instrument(self.span.clone()).await;
                self.context.recorded(saved.event);
                Some(saved)
            }
        };
        let summary = self.context.summary(saved.as_ref());
        self.context.report(&self.span, &summary);
        if let Some(saved) = &saved {
            trace::recorded(&self.span, saved.event, &saved.marks);
        }
        self.context.tell_loss(&summary);
        self.outer.goes_on_from(&self.known, &summary, saved.as_ref().map(|saved| &saved.marks));
        self.guard.disarm();
        let token = summary.news.then(|| self.outer.token_by_now()).flatten();
        Delivered {
            token,
            route: summary.route,
            reason: summary.reason,
            enforced: summary.achieved,
            lost: summary.lost,
        }
    }

    /// Serves the message with `work` and finishes it. An error is answered as soon as the message, if it may have written,
    /// has been marked with an unknown outcome; a mark store that needs time is told by a task, which ends by its deadline.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run<T, E>(self, work: impl Future<Output = Result<T, E>>) -> Result<(T, Delivered), E> {
        let value = self.scope(work).await?;
        Ok((value, self.finish().await))
    }
}
