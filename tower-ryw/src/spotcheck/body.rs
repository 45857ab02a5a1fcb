//! A body whose digest is taken while it passes.

use std::{
    fmt,
    hash::Hasher,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::problem::AnswerBody;

/// What was answered, as a number that nobody outside can aim at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u128);

/// A digest on its way. However the bytes are cut into frames, it is the same.
#[derive(Clone, Debug)]
pub(super) struct Digesting {
    hasher: SipHasher13,
    /// How many more bytes are taken.
    room: usize,
}

/// What is done with the digest of a body that has come to its end.
pub(super) type Then = Box<dyn FnOnce(Result<Digest, TooLarge>) + Send>;

/// The answer has more bytes than are compared.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Digesting {
    pub(super) fn new(keys: (u64, u64), room: usize, status: StatusCode) -> Self {
        let mut hasher = SipHasher13::new_with_keys(keys.0, keys.1);
        hasher.write(&status.as_u16().to_le_bytes());
        Self { hasher, room }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(TooLarge)?;
        self.hasher.write(bytes);
        Ok(())
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(self.hasher.finish128().into())
    }
}

/// Who looks on.
pub(super) struct Onlooker {
    pub(super) digesting: Digesting,
    pub(super) then: Then,
}

pin_project! {
    /// The body of a response, untouched. Of those that are checked, a digest is taken as it passes.
    pub struct SpotCheckBody<B> {
        onlooker: Option<Box<Onlooker>>,
        #[pin]
        body: B,
    }
}

impl<B: Body<Data = Bytes>> SpotCheckBody<B> {
    pub(super) fn new(body: B, onlooker: Option<Onlooker>) -> Self {
        let mut onlooker = onlooker.map(Box::new);
        if body.is_end_stream() {
            finish(&mut onlooker);
        }
        Self { onlooker, body }
    }
}

fn finish(onlooker: &mut Option<Box<Onlooker>>) {
    if let Some(Onlooker { digesting, then }) = onlooker.take().map(|onlooker| *onlooker) {
        then(Ok(digesting.digest()));
    }
}

impl<B: Body<Data = Bytes>> Body for SpotCheckBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let Some(onlooker) = this.onlooker else { return Poll::Ready(frame) };
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(&[][..], |data| data);
                if onlooker.digesting.take(bytes).is_err() {
                    if let Some(onlooker) = this.onlooker.take() {
                        (onlooker.then)(Err(TooLarge));
                    }
                } else if this.body.is_end_stream() {
                    // Nobody need ask for the end of a body that says itself that it is over.
                    finish(this.onlooker);
                }
            }
            Some(Err(_)) => *this.onlooker = None,
            None => finish(this.onlooker),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: AnswerBody> AnswerBody for SpotCheckBody<B> {
    fn answer(bytes: Bytes) -> Self {
        Self { onlooker: None, body: B::answer(bytes) }
    }
}

impl<B: Default> Default for SpotCheckBody<B> {
    fn default() -> Self {
        Self { onlooker: None, body: B::default() }
    }
}

impl<B: fmt::Debug> fmt::Debug for SpotCheckBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpotCheckBody").field("body", &self.body).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: StatusCode, frames: &[&str]) -> Option<Digest> {
        let mut digesting = Digesting::new((1, 2), 10, status);
        frames.iter().try_for_each(|frame| digesting.take(frame.as_bytes())).ok()?;
        Some(digesting.digest())
    }

    #[test]
    fn frames_make_no_difference_and_everything_else_does() {
        let whole = of(StatusCode::OK, &["0123456789"]);
        assert!(whole.is_some());
        assert_eq!(of(StatusCode::OK, &["0", "", "12345678", "9"]), whole);
        assert_ne!(of(StatusCode::OK, &["0123456788"]), whole);
        assert_ne!(of(StatusCode::NOT_FOUND, &["0123456789"]), whole);
        assert_eq!(of(StatusCode::OK, &["0123456789", "a"]), None, "larger than what is compared");
    }
}
