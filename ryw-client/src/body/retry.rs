//! Request bodies that can be sent again.

use std::convert::Infallible;
#[cfg(feature = "reqwest")]
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::{
    BodyExt, Empty, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};

/// A request body that a [`RywClientLayer`](crate::RywClientLayer) may have to send more than once.
///
/// Implemented for `()`, `String`, [`Empty`] and [`Full`] of [`http_body_util`], for its boxed bodies, which are sent again
/// only when they are empty, and with the features `reqwest` and `tonic` for theirs. Implement it for a body of your own: one
/// that can't be sent again is `record`ed as itself and `()`, and never `replay`ed.
pub trait RetryBody: Sized {
    /// What it takes to make the same body again.
    type Copy;

    /// Called once, before the body is sent for the first time and only when it may have to be sent again.
    fn record(self) -> (Self, Self::Copy);

    /// The same body again, if there is a way.
    fn replay(copy: &Self::Copy) -> Option<Self>;

    /// No body: what follows a redirect from POST to GET.
    fn empty() -> Self;
}

impl RetryBody for () {
    type Copy = ();

    fn record(self) -> (Self, Self::Copy) {
        ((), ())
    }

    fn replay((): &Self::Copy) -> Option<Self> {
        Some(())
    }

    fn empty() -> Self {}
}

impl RetryBody for String {
    type Copy = Self;

    fn record(self) -> (Self, Self::Copy) {
        (self.clone(), self)
    }

    fn replay(copy: &Self::Copy) -> Option<Self> {
        Some(copy.clone())
    }

    fn empty() -> Self {
        Self::new()
    }
}

impl<D> RetryBody for Empty<D> {
    type Copy = ();

    fn record(self) -> (Self, Self::Copy) {
        (self, ())
    }

    fn replay((): &Self::Copy) -> Option<Self> {
        Some(Self::new())
    }

    fn empty() -> Self {
        Self::new()
    }
}

impl<D: Buf + Clone> RetryBody for Full<D> {
    type Copy = Self;

    fn record(self) -> (Self, Self::Copy) {
        (self.clone(), self)
    }

    fn replay(copy: &Self::Copy) -> Option<Self> {
        Some(copy.clone())
    }

    fn empty() -> Self {
        Self::default()
    }
}

/// Whether it was empty.
macro_rules! only_when_empty {
    ($type:ty, $boxed:ident) => {
        impl<E: 'static> RetryBody for $type {
            type Copy = bool;

            fn record(self) -> (Self, Self::Copy) {
                let empty = self.is_end_stream();
                (self, empty)
            }

            fn replay(copy: &Self::Copy) -> Option<Self> {
                copy.then(Self::empty)
            }

            fn empty() -> Self {
                Empty::new().map_err(|never: Infallible| match never {}).$boxed()
            }
        }
    };
}

only_when_empty!(BoxBody<Bytes, E>, boxed);
only_when_empty!(UnsyncBoxBody<Bytes, E>, boxed_unsync);

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
impl RetryBody for reqwest::Body {
    /// `None` for a stream.
    type Copy = Option<Bytes>;

    fn record(self) -> (Self, Self::Copy) {
        if self.as_bytes().is_none() {
            return (self, None);
        }
        // What is in memory comes out at once and as a whole, shared and not copied as `as_bytes` would have it.
        let mut body = self;
        let bytes = match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        };
        (bytes.clone().into(), Some(bytes))
    }

    fn replay(copy: &Self::Copy) -> Option<Self> {
        copy.clone().map(Self::from)
    }

    fn empty() -> Self {
        Self::default()
    }
}
