//! Why a message can't be served.

use std::time::Duration;

use ryw_core::{Lost, Reason};

use crate::problem::Refusal;

/// A message of a stream can't be served now. The stream itself goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError(Refusal);

/// Why a message can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// Nothing that may serve it is fresh enough or reachable.
    NotFreshEnough,
    /// It is a strict write, and the other instances can't be told of it.
    NotAnnounced,
    /// It would write after something that did not survive a failover, and the client has not
    /// [acknowledged](super::RywStream::acknowledge_lost) that.
    Lost(Lost),
}

impl StreamError {
    /// Why.
    #[must_use]
    pub const fn kind(&self) -> StreamErrorKind {
        match &self.0 {
            Refusal::Lost(lost) => StreamErrorKind::Lost(*lost),
            Refusal::NotAnnounced { .. } => StreamErrorKind::NotAnnounced,
            Refusal::Behind { .. } | Refusal::BadRequest { .. } => StreamErrorKind::NotFreshEnough,
        }
    }

    /// The same in one word, as `Ryw-Route` has it.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        self.0.reason()
    }

    /// After how long it may be tried again; `None` where time alone changes nothing.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match &self.0 {
            Refusal::Behind { retry_after, .. } | Refusal::NotAnnounced { retry_after } => Some(*retry_after),
            Refusal::Lost(_) | Refusal::BadRequest { .. } => None,
        }
    }
}

impl From<Refusal> for StreamError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl std::fmt::Display for StreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.detail())
    }
}

impl std::error::Error for StreamError {}

/// `UNAVAILABLE`, or `FAILED_PRECONDITION` after a loss.
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<StreamError> for tonic::Status {
    fn from(error: StreamError) -> Self {
        match error.kind() {
            StreamErrorKind::Lost(_) => Self::failed_precondition(error.to_string()),
            StreamErrorKind::NotFreshEnough | StreamErrorKind::NotAnnounced => Self::unavailable(error.to_string()),
        }
    }
}
