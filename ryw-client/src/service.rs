//! The service that the layer makes.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{
    body::{LearnBody, RetryBody},
    call::Call,
    future::ResponseFuture,
    layer::Config,
    retry::Budget,
};

/// A client service whose requests carry a session, see [`RywClientLayer`](crate::RywClientLayer).
#[derive(Clone)]
pub struct RywClientService<S> {
    inner: S,
    config: Arc<Config>,
    budget: Arc<Budget>,
}

impl<S> RywClientService<S> {
    pub(crate) const fn new(inner: S, config: Arc<Config>, budget: Arc<Budget>) -> Self {
        Self { inner, config, budget }
    }

    /// The service underneath.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B, R> Service<Request<B>> for RywClientService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: RetryBody,
{
    type Response = Response<LearnBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is the one that is called; what stays behind is polled before it is.
        let clone = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, clone);
        let (call, request) = Call::begin(Arc::clone(&self.config), Arc::clone(&self.budget), request);
        let response = service.call(request);
        ResponseFuture::new(service, call, response)
    }
}

impl<S: fmt::Debug> fmt::Debug for RywClientService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RywClientService").field("inner", &self.inner).finish_non_exhaustive()
    }
}
