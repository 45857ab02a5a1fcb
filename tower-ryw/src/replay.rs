//! For when a replica could not do what was asked of it: the request is made again elsewhere, once.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_layer::Layer;
use tower_service::Service;

use crate::{context::RywContext, decide::Route, policy::Intent};

/// Makes a request again, once, when the replica that it was sent to could not serve it:
///
/// * it turned out to write ([`RywContext::found_write`]): again on the primary, with a mark, `reason=replayed`;
/// * the replica broke it off ([`RywContext::found_failure`]): again on another node, chosen anew.
///
/// Put it inside of the [`RywLayer`](crate::RywLayer), right around the handlers. The pools of `ryw-postgres` tell what
/// they find; where a handler finds an error itself, it says so. Only reads without a body that were sent to a replica
/// and were answered by an error are made again, so a handler that dealt with the trouble has the last word. It costs
/// each read a copy of its head.
///
/// Whatever the handler did outside of the database before it failed is done twice. A transaction that a standby has
/// refused has changed nothing; a handler that has used the primary is not called again.
///
/// ```
/// # use axum::{Router, http::StatusCode, routing::get};
/// use tower_ryw::{ReplayLayer, Route, RywContext, RywLayer};
///
/// # async fn count_view(_: &Route) -> Result<(), &'static str> { Ok(()) }
/// async fn view(ryw: RywContext) -> StatusCode {
///     match count_view(&ryw.route()).await {
///         Ok(()) => StatusCode::OK,
///         Err(_refused_by_a_standby) => {
///             ryw.found_write();
///             StatusCode::INTERNAL_SERVER_ERROR
///         }
///     }
/// }
/// let app: Router = Router::new().route("/", get(view)).layer(ReplayLayer::new()).layer(RywLayer::new());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayLayer;

impl ReplayLayer {
    /// The layer; there is nothing to set.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Replay { inner }
    }
}

/// See [`ReplayLayer`].
#[derive(Clone, Debug)]
pub struct Replay<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Replay<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Body + Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ReplayFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let again = again(&request).map(|(context, request)| Again { context, request, service: self.inner.clone() });
        ReplayFuture { state: State::First { response: self.inner.call(request), again } }
    }
}

/// A copy of the request, if it can be made again at all.
fn again<B: Body + Default>(request: &Request<B>) -> Option<(RywContext, Request<B>)> {
    if !request.body().is_end_stream() {
        return None;
    }
    let context = request.extensions().get().cloned().or_else(RywContext::current)?;
    if context.identity().terms.intent == Intent::Write || context.route() == Route::Primary {
        return None;
    }
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some((context, copy))
}

struct Again<S, B> {
    context: RywContext,
    request: Request<B>,
    service: S,
}

pin_project! {
    /// The response of a [`Replay`]. Dropping it drops the handler's future, the first or the second.
    pub struct ReplayFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Stage]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        First { #[pin] response: S::Future, again: Option<Again<S, B>> },
        Second { #[pin] response: Oneshot<S, Request<B>> },
    }
}

impl<S, B, R> Future for ReplayFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                Stage::First { response, again } => {
                    let answer = ready!(response.poll(cx));
                    let failed = answer.as_ref().map_or(true, is_error);
                    match again.take().filter(|again| failed && again.context.redirect()) {
                        Some(Again { request, service, .. }) => {
                            state.set(State::Second { response: Oneshot::new(service, request) });
                        }
                        None => return Poll::Ready(answer),
                    }
                }
                Stage::Second { response } => return response.poll(cx),
            }
        }
    }
}

fn is_error<R>(response: &Response<R>) -> bool {
    let grpc = response.headers().get("grpc-status").is_some_and(|status| status.as_bytes() != b"0");
    grpc || response.status().is_server_error()
}

impl<S, B> fmt::Debug for ReplayFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayFuture")
    }
}
