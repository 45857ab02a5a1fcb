//! Requests whose bodies say whether they read.

mod ahead;
mod graphql;
mod kinds;

use std::{
    collections::HashSet,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;

use crate::policy::{BodyIntent, Intent};

pub use ahead::ReadAhead;

/// Tells reads from writes by the bodies of POST requests to one path: GraphQL or JSON-RPC. Goes outside of (in axum: is
/// added after) the [`RywLayer`](crate::RywLayer).
///
/// The body is read ahead, up to a [`limit`](Self::limit) and a [`deadline`](Self::deadline), and handed on as it came. What is
/// longer, slower, or can't be understood is left to the layer's [`Classify`](crate::Classify), for which a POST is a
/// write. A [`RouteRule`](crate::RouteRule) with an intent goes first.
///
/// ```
/// use axum::{Router, routing::post};
/// use tower_ryw::{ClassifyBodyLayer, RywLayer};
///
/// let app: Router = Router::new()
///     .route("/graphql", post(|| async { "{}" }))
///     .layer(RywLayer::new())
///     .layer(ClassifyBodyLayer::graphql("/graphql"));
/// ```
#[derive(Clone)]
pub struct ClassifyBodyLayer {
    path: Arc<str>,
    kind: Arc<Kind>,
    limit: usize,
    deadline: Duration,
}

#[derive(Debug)]
enum Kind {
    GraphQl,
    JsonRpc(HashSet<Box<str>>),
}

impl ClassifyBodyLayer {
    /// GraphQL over HTTP: a query reads, a mutation or a subscription writes. Of several operations `operationName`
    /// says which one counts. A batch reads if all of it does.
    #[must_use]
    pub fn graphql(path: &str) -> Self {
        Self::new(path, Kind::GraphQl)
    }

    /// JSON-RPC: these methods read. A batch reads if all of it does.
    ///
    /// ```
    /// use tower_ryw::ClassifyBodyLayer;
    /// let layer = ClassifyBodyLayer::json_rpc("/rpc", ["notes.get", "notes.list"]).limit(16 * 1024);
    /// ```
    #[must_use]
    pub fn json_rpc<'a>(path: &str, reads: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(path, Kind::JsonRpc(reads.into_iter().map(Into::into).collect()))
    }

    fn new(path: &str, kind: Kind) -> Self {
        Self { path: path.into(), kind: kind.into(), limit: 64 * 1024, deadline: Duration::from_secs(1) }
    }

    /// The longest body that is looked at, in bytes. That much is held in memory for each such request. Default: 65536.
    #[must_use]
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// How long a body is waited for before the request is handed on without a look at it. Default: 1 s.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<S> Layer<S> for ClassifyBodyLayer {
    type Service = ClassifyBody<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ClassifyBody { inner, layer: self.clone() }
    }
}

/// The service of a [`ClassifyBodyLayer`]. Readiness and errors are the inner service's.
#[derive(Clone, Debug)]
pub struct ClassifyBody<S> {
    inner: S,
    layer: ClassifyBodyLayer,
}

impl<S, B> Service<Request<B>> for ClassifyBody<S>
where
    S: Service<Request<ReadAhead<B>>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ClassifyBodyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_meant = request.method() == Method::POST && request.uri().path() == &*self.layer.path;
        let mut request = request.map(ReadAhead::new);
        if !is_meant {
            return ClassifyBodyFuture { state: State::Served { response: self.inner.call(request) } };
        }
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let ClassifyBodyLayer { kind, limit, deadline, .. } = self.layer.clone();
        let work = Box::pin(async move {
            // What has been read is kept, whether it is all or not.
            let _ = timeout(deadline, request.body_mut().read(limit)).await;
            let found = request.body().whole(limit).and_then(|body| match &*kind {
                Kind::GraphQl => kinds::graphql(&body),
                Kind::JsonRpc(reads) => kinds::json_rpc(&body, reads),
            });
            tracing::trace!(read = (found == Some(Intent::Read)), "classified by its body");
            if let Some(intent) = found {
                request.extensions_mut().insert(BodyIntent(intent));
            }
            ready.call(request).await
        });
        ClassifyBodyFuture { state: State::Reading { work } }
    }
}

pin_project! {
    /// The response of a [`ClassifyBody`].
    pub struct ClassifyBodyFuture<F: Future> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Stage]
    enum State<F: Future> {
        Served { #[pin] response: F },
        Reading { work: Pin<Box<dyn Future<Output = F::Output> + Send>> },
    }
}

impl<F: Future> Future for ClassifyBodyFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            Stage::Served { response } => response.poll(cx),
            Stage::Reading { work } => work.as_mut().poll(cx),
        }
    }
}

impl<F: Future> fmt::Debug for ClassifyBodyFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClassifyBodyFuture")
    }
}

impl fmt::Debug for ClassifyBodyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind, limit, deadline } = self;
        f.debug_struct("ClassifyBodyLayer")
            .field("path", path)
            .field("kind", kind)
            .field("limit", limit)
            .field("deadline", deadline)
            .finish()
    }
}
