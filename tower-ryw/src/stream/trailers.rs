//! gRPC responses that go on writing after their headers.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use ryw_core::wire;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    context::RywContext,
    future::Work,
    outcome::{Outcome, Told, outcome},
    policy::Intent,
    problem::{AnswerBody, Protocol},
    record::{Effect, record},
};

/// Puts the session's token into the trailers of gRPC responses: what a streaming method has written after its headers left
/// is in no header. Goes inside of the [`RywLayer`](crate::RywLayer).
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_ryw::{GrpcTrailersLayer, RywLayer};
///
/// let both = ServiceBuilder::new().layer(RywLayer::new()).layer(GrpcTrailersLayer::new());
/// // tonic::transport::Server::builder().layer(both).add_service(...)
/// ```
///
/// A call that writes is recorded once more when its stream has ended, before the trailers leave: by then all of it is
/// committed. That is one more position and one more mark for each call that writes, unary ones too, for they look the same
/// from here. The handler of a call whose messages are [messages](crate::RywStream) of their own spares it with
/// [`RywContext::mark_not_written`]. A stream that is cut short (the client has gone) leaves an unknown outcome.
///
/// Responses that are no gRPC are left alone, and so are those of calls that neither write nor use
/// [`RywContext::stream`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcTrailersLayer(());

impl GrpcTrailersLayer {
    /// The layer.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for GrpcTrailersLayer {
    type Service = GrpcTrailers<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcTrailers { inner }
    }
}

/// The service of a [`GrpcTrailersLayer`].
#[derive(Clone, Debug)]
pub struct GrpcTrailers<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for GrpcTrailers<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<GrpcTrailersBody<R>>;
    type Error = S::Error;
    type Future = GrpcTrailersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        GrpcTrailersFuture { response: self.inner.call(request) }
    }
}

pin_project! {
    /// The response of a [`GrpcTrailers`].
    #[derive(Debug)]
    pub struct GrpcTrailersFuture<F> {
        #[pin]
        response: F,
    }
}

impl<F, R, E> Future for GrpcTrailersFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<GrpcTrailersBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().response.poll(cx))?;
        // With the status in its headers it has no trailers.
        let has_trailers =
            Protocol::of(response.headers()) == Protocol::Grpc && !response.headers().contains_key("grpc-status");
        let context = RywContext::made().filter(|context| has_trailers && (writes(context) || context.is_ongoing()));
        if let Some(context) = &context {
            context.goes_on();
        }
        let late = context.map(|context| Late { context, is_recorded: false });
        Poll::Ready(Ok(response.map(|body| GrpcTrailersBody { late, body, end: End::NotYet })))
    }
}

fn writes(context: &RywContext) -> bool {
    match context.told() {
        Told::Written => true,
        Told::NotWritten => false,
        Told::Nothing => context.identity().terms.intent == Intent::Write,
    }
}

/// A call whose headers have left. Dropped before what it wrote since then is recorded, it leaves an unknown outcome.
struct Late {
    context: RywContext,
    is_recorded: bool,
}

impl Drop for Late {
    fn drop(&mut self) {
        if !self.is_recorded && writes(&self.context) {
            self.context.record_unknown();
        }
    }
}

impl Late {
    /// What there is to do before the trailers leave.
    fn record(&self, trailers: Option<&HeaderMap>) -> Option<Work<()>> {
        if !writes(&self.context) {
            return None;
        }
        let keys = self.context.keys_to_mark();
        let ended = self.context.end();
        let effect = match by_status(trailers) {
            Outcome::Unknown => {
                self.context.hold_unfinished(&keys);
                Effect::Unknown
            }
            // Whatever the call was refused for in the end, it may have written before.
            Outcome::Committed | Outcome::NotWritten => {
                let shown = self.context.identity().terms.reads_raise_marks;
                Effect::Write { known: ryw_core::Marks::none(), shown, served: ended.served }
            }
        };
        let context = self.context.clone();
        Some(Box::pin(async move {
            let saved = record(context.config().clone(), keys, context.required().marks.clone(), effect, None).await;
            context.recorded(saved.event);
            context.wrote_late(&saved);
        }))
    }
}

/// What the status at the end of a stream says about its writes. Without one it was broken off.
fn by_status(trailers: Option<&HeaderMap>) -> Outcome {
    let Some(status) = trailers.and_then(|trailers| trailers.get("grpc-status")) else { return Outcome::Unknown };
    let mut ended = Response::new(());
    ended.headers_mut().insert("grpc-status", status.clone());
    outcome(Intent::Write, Told::Nothing, &ended)
}

pin_project! {
    /// The body of a gRPC response, untouched, but for its trailers, see [`GrpcTrailersLayer`].
    pub struct GrpcTrailersBody<B> {
        late: Option<Late>,
        #[pin]
        body: B,
        end: End,
    }
}

/// How far a stream's end has come.
enum End {
    NotYet,
    /// It is held back until what it tells of is recorded.
    Recording {
        work: Work<()>,
        trailers: Option<HeaderMap>,
    },
    Over,
}

impl<B: Body> Body for GrpcTrailersBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        if let End::NotYet = this.end {
            let Some(late) = this.late else { return this.body.poll_frame(cx) };
            let trailers = match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_trailers() {
                    Ok(trailers) => Some(trailers),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            let work = late.record(trailers.as_ref()).unwrap_or_else(|| Box::pin(std::future::ready(())));
            *this.end = End::Recording { work, trailers };
        }
        let End::Recording { work, trailers } = this.end else { return Poll::Ready(None) };
        ready!(work.as_mut().poll(cx));
        let trailers = trailers.take();
        *this.end = End::Over;
        let late = this.late.as_mut().map(|late| {
            late.is_recorded = true;
            &late.context
        });
        Poll::Ready(trailers.map(|mut trailers| {
            let token = late.and_then(RywContext::token_by_now);
            if let Some(token) = token.and_then(|token| HeaderValue::try_from(token).ok()) {
                trailers.insert(&wire::TOKEN, token);
            }
            Ok(Frame::trailers(trailers))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self.end {
            End::NotYet => self.late.is_none() && self.body.is_end_stream(),
            End::Recording { .. } => false,
            End::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: AnswerBody> AnswerBody for GrpcTrailersBody<B> {
    fn answer(bytes: Bytes) -> Self {
        Self { late: None, body: B::answer(bytes), end: End::NotYet }
    }
}

impl<B: Default> Default for GrpcTrailersBody<B> {
    fn default() -> Self {
        Self { late: None, body: B::default(), end: End::NotYet }
    }
}

impl<B: fmt::Debug> fmt::Debug for GrpcTrailersBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcTrailersBody").field("body", &self.body).finish_non_exhaustive()
    }
}
