//! A gRPC request body that is remembered while it is sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use parking_lot::Mutex;

use super::RetryBody;

/// Longest body that is remembered, in bytes.
const MAX_RECORDED: usize = 64 * 1024;

/// What has been sent so far of a body.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    chunks: Vec<u8>,
    complete: bool,
    /// It is too long, or holds what is not data.
    useless: bool,
}

struct Recorded {
    body: tonic::body::Body,
    recording: Recording,
}

/// Remembered up to 64 KiB. A stream that has not ended when the answer comes is not sent again.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl RetryBody for tonic::body::Body {
    type Copy = Recording;

    fn record(self) -> (Self, Self::Copy) {
        let recording = Recording::default();
        recording.0.lock().complete = self.is_end_stream();
        (Self::new(Recorded { body: self, recording: recording.clone() }), recording)
    }

    fn replay(copy: &Self::Copy) -> Option<Self> {
        let recording = copy.0.lock();
        let usable = recording.complete && !recording.useless;
        usable.then(|| Self::new(Full::new(Bytes::copy_from_slice(&recording.chunks))))
    }

    fn empty() -> Self {
        Self::empty()
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let mut recording = this.recording.0.lock();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) if !recording.useless && recording.chunks.len() + data.len() <= MAX_RECORDED => {
                    recording.chunks.extend_from_slice(data);
                }
                _ => (recording.useless, recording.chunks) = (true, Vec::new()),
            },
            Poll::Ready(Some(Err(_))) => recording.useless = true,
            Poll::Ready(None) => recording.complete = true,
            Poll::Pending => {}
        }
        // A body that says so is not asked for its end.
        recording.complete |= this.body.is_end_stream();
        drop(recording);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
