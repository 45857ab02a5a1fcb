//! A response body whose trailers are learned from.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use ryw_core::Outcome;

use crate::{
    served::Served,
    session::{Destination, Sent, Session, speaks},
};

pin_project! {
    /// The body of a response, untouched, but for its trailers, which are read as they pass by: after a streamed write that
    /// is where the token is. A body that is dropped before its end teaches nothing.
    pub struct LearnBody<B> {
        #[pin]
        body: B,
        lesson: Option<Lesson>,
    }
}

/// Who learns what a response says.
#[derive(Clone)]
pub(crate) struct Lesson {
    pub(crate) session: Session,
    pub(crate) from: Destination,
    pub(crate) sent: Sent,
    pub(crate) served: Served,
    /// The response answers a write.
    pub(crate) writes: bool,
}

impl Lesson {
    pub(crate) fn learn(&self, headers: &HeaderMap) {
        self.session.learn(&self.from, &self.sent, headers);
    }

    /// The same for trailers, after which nobody waits for anything.
    fn learn_late(&self, trailers: &HeaderMap) {
        self.learn(trailers);
        // Whatever the headers have said was said before.
        if self.writes
            && let Some(grpc) = trailers.get("grpc-status")
            && Outcome::of_write(StatusCode::OK, Some(grpc.as_bytes())) == Outcome::Unknown
            && !speaks(trailers)
        {
            self.session.doubt(&self.from);
        }
        self.served.hand_over_late(&self.session);
    }
}

impl<B> LearnBody<B> {
    pub(crate) const fn new(body: B, lesson: Option<Lesson>) -> Self {
        Self { body, lesson }
    }

    /// The body itself. Its trailers are not learned from any more.
    #[must_use]
    pub fn into_inner(self) -> B {
        self.body
    }
}

impl<B: Body> Body for LearnBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
            && let Some(lesson) = this.lesson.take()
        {
            lesson.learn_late(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for LearnBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: fmt::Debug> fmt::Debug for LearnBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LearnBody").field("body", &self.body).finish_non_exhaustive()
    }
}
