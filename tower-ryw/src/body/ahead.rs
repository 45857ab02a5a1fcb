//! A request body that was read ahead.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of a request, as it came: what has been read of it to classify the request, then the rest.
pub struct ReadAhead<B: Body> {
    ahead: VecDeque<Result<Frame<B::Data>, B::Error>>,
    body: B,
    is_over: bool,
}

impl<B: Body> ReadAhead<B> {
    pub(super) const fn new(body: B) -> Self {
        Self { ahead: VecDeque::new(), body, is_over: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> ReadAhead<B> {
    /// Reads on until the body is over or `limit` bytes are exceeded. Whatever has been read stays read when this is
    /// dropped.
    pub(super) async fn read(&mut self, limit: usize) {
        let mut length = 0;
        // Empty frames take room too.
        while length <= limit && self.ahead.len() <= limit && !self.body.is_end_stream() {
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(frame) => {
                    let failed = frame.is_err();
                    length += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
                    self.ahead.push_back(frame);
                    if failed {
                        return;
                    }
                }
                None => {
                    self.is_over = true;
                    return;
                }
            }
        }
        self.is_over = self.body.is_end_stream();
    }

    /// All of it, if all of it has been read and is not longer than that.
    pub(super) fn whole(&self, limit: usize) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        for frame in &self.ahead {
            whole.extend_from_slice(frame.as_ref().ok()?.data_ref().map_or(&[], |data| &data[..]));
        }
        (self.is_over && whole.len() <= limit).then_some(whole)
    }
}

impl<B: Body + Unpin> Body for ReadAhead<B>
where
    B::Data: Unpin,
    B::Error: Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if self.is_over => Poll::Ready(None),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && (self.is_over || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.ahead.is_empty() && !self.is_over {
            return self.body.size_hint();
        }
        let ahead = self.ahead.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let ahead: u64 = ahead.map(|data| bytes::Buf::remaining(data) as u64).sum();
        let rest = if self.is_over { SizeHint::with_exact(0) } else { self.body.size_hint() };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }
}

impl<B: Body> fmt::Debug for ReadAhead<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead").field("frames", &self.ahead.len()).finish_non_exhaustive()
    }
}
