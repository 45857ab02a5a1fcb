//! Where marks are kept between requests.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use smallvec::SmallVec;

use crate::{Marks, Position, SubjectKey};

/// Keeps marks between requests.
///
/// An implementation may forget, but never silently: whatever it has dropped (evicted, expired, lost in a restart)
/// must still be covered by what [`load`](Self::load) answers for a subject that it does not know, as positions that
/// contain the forgotten marks or as *unknown*. Joins of one subject may run at the same time and arrive twice.
///
/// Methods take no time themselves: they return an answer that is ready, or a future. A caller may drop that future
/// at any point; a join that was started may then still take effect.
pub trait MarkStore: fmt::Debug + Send + Sync + 'static {
    /// The join of the marks of all `keys`.
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded>;

    /// Joins `update` into the marks of each of `keys` and renews their expiry.
    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()>;

    /// Answers what a load called unsettled: everything that is *unknown* there, or lies somewhere before the end of
    /// `at`'s epoch, is contained in `at`, which was sampled after the load; without positions (`None`), a window has passed since it became unknown. Does nothing
    /// to a subject that was written to in the meantime.
    ///
    /// A floor is nobody's own write: positions of epochs before `at`'s are dropped from it, because `at` contains
    /// what survived of them.
    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()>;

    /// The client knows that `told` is lost: takes exactly that out of the marks of each of `keys`, see
    /// [`Marks::without`], and leaves what has come since.
    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()>;
}

/// What a store knows about some subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The join of their own marks. *Unknown* when something of [`unsettled`](Self::unsettled) is.
    pub marks: Marks,
    /// What those of them are held to that the store does not know, or does not know all of.
    pub floor: Marks,
    /// The subjects whose marks are *unknown*, or open to the end of an epoch, and can be settled by sampling the
    /// primary's position now.
    pub unsettled: SmallVec<[Unsettled; 1]>,
    /// The subjects that are held to the floor: settling them renews it.
    pub floored: SmallVec<[Unsettled; 1]>,
    /// Something was joined for at least one of them, and the store still has it as that subject's own. Where several
    /// stores answer together, in at least one of them: another one may hold the same subject to its floor.
    pub has_entry: bool,
    /// A part of the store could not be asked, and for that the marks are *unknown*.
    pub incomplete: bool,
}

/// One subject whose marks are unknown, and how to recognise that nothing has happened to it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unsettled {
    /// The subject.
    pub key: SubjectKey,
    /// Changes when the subject is marked unknown again.
    pub stamp: Stamp,
}

/// A state of one subject in a store, meaningful to that store only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp(pub u64);

/// What a request adds to its subjects' marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Marks to join.
    pub marks: Marks,
    /// How long a write may still be on its way: until then the marks are also *pending*.
    pub hold: Option<Duration>,
}

/// The answer of a store: ready, or a boxed future. A local store thus costs neither an allocation nor a task switch.
pub struct StoreFuture<T>(Inner<T>);

enum Inner<T> {
    Ready(Option<Result<T, StoreError>>),
    Boxed(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>),
}

/// A mark store could not answer.
#[derive(Debug, thiserror::Error)]
#[error("mark store: {kind}")]
pub struct StoreError {
    kind: StoreErrorKind,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No answer within the deadline.
    Timeout,
    /// The store can't be reached.
    Unavailable,
    /// The store answered something that is not a mark.
    Corrupt,
    /// The store has the mark, but not in as many places as was asked for.
    TooFewCopies,
}

impl StoreErrorKind {
    /// Whether the store is at fault, and not only what it was asked about.
    #[must_use]
    pub const fn is_outage(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }
}

impl<T> StoreFuture<T> {
    /// An answer that is there already.
    #[must_use]
    pub const fn ready(value: T) -> Self {
        Self(Inner::Ready(Some(Ok(value))))
    }

    /// An error that is there already.
    #[must_use]
    pub const fn failed(error: StoreError) -> Self {
        Self(Inner::Ready(Some(Err(error))))
    }

    /// An answer that takes its time.
    pub fn boxed(future: impl Future<Output = Result<T, StoreError>> + Send + 'static) -> Self {
        Self(Inner::Boxed(Box::pin(future)))
    }

    /// The answer, if it is there without waiting.
    ///
    /// # Errors
    /// Gives the future back when the answer is not there yet.
    pub fn now(mut self) -> Result<Result<T, StoreError>, Self> {
        match &mut self.0 {
            Inner::Ready(answer) => answer.take().ok_or(self),
            Inner::Boxed(_) => Err(self),
        }
    }
}

impl<T> Future for StoreFuture<T>
where
    T: Unpin,
{
    type Output = Result<T, StoreError>;

    /// # Panics
    /// When polled again after it has answered.
    #[expect(clippy::expect_used, reason = "the contract of futures")]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Ready(answer) => {
                Poll::Ready(answer.take().expect("a store's answer was polled after it had been given"))
            }
            Inner::Boxed(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for StoreFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Inner::Ready(_) => "StoreFuture(ready)",
            Inner::Boxed(_) => "StoreFuture(boxed)",
        })
    }
}

impl StoreError {
    /// An error of this kind.
    #[must_use]
    pub const fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// The same error, with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no answer within the deadline",
            Self::Unavailable => "can't be reached",
            Self::Corrupt => "answered something that is not a mark",
            Self::TooFewCopies => "has the mark, but in too few places",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn polled<T: Unpin>(future: &mut StoreFuture<T>) -> Poll<Result<T, StoreError>> {
        Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn an_answer_that_is_there_needs_no_waiting() {
        assert!(matches!(StoreFuture::ready(7).now(), Ok(Ok(7))));
        assert!(matches!(polled(&mut StoreFuture::ready(7)), Poll::Ready(Ok(7))));
        let timeout = || StoreError::new(StoreErrorKind::Timeout);
        assert!(
            matches!(StoreFuture::<u8>::failed(timeout()).now(), Ok(Err(error)) if error.kind() == StoreErrorKind::Timeout)
        );
        assert!(matches!(polled(&mut StoreFuture::<u8>::failed(timeout())), Poll::Ready(Err(_))));
    }

    #[test]
    fn a_future_is_given_back_and_answers_later() {
        let mut given_back = StoreFuture::boxed(async { Ok(7) }).now().unwrap_err();
        assert!(matches!(polled(&mut given_back), Poll::Ready(Ok(7))));
        assert!(polled(&mut StoreFuture::<u8>::boxed(std::future::pending())).is_pending());
    }

    /// An answer is given once: whoever has taken it does not get it again.
    #[test]
    #[should_panic(expected = "after it had been given")]
    fn nobody_is_answered_twice() {
        let mut answer = StoreFuture::ready(7);
        assert!(polled(&mut answer).is_ready());
        let _ = polled(&mut answer);
    }

    #[test]
    fn an_error_tells_its_kind_and_its_cause() {
        for (kind, is_outage) in [
            (StoreErrorKind::Timeout, true),
            (StoreErrorKind::Unavailable, true),
            (StoreErrorKind::Corrupt, false),
            (StoreErrorKind::TooFewCopies, false),
        ] {
            let error = StoreError::new(kind);
            assert!(error.source().is_none());
            let error = error.with_source("the cause");
            assert_eq!((error.kind(), error.kind().is_outage()), (kind, is_outage));
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the cause"));
            assert_eq!(error.to_string(), format!("mark store: {kind}"));
        }
    }
}
