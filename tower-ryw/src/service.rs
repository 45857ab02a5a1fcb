//! The middleware itself.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use ryw_core::wire;
use tower_service::Service;
use tracing::Span;

use crate::{
    config::Config,
    context::Scope,
    future::{ResponseFuture, Start, start},
    identify::{Caller, identify},
    observe::Refused,
    present::Present,
    problem::{AnswerBody, Protocol},
    trace,
};

/// Makes a service read-your-writes, see [`RywLayer`](crate::RywLayer).
///
/// Readiness and errors are the inner service's. The inner service has to be `Clone` because a request that waits for
/// its marks or for a replica keeps the instance that was found ready and leaves a clone behind; requests that don't
/// wait, which are nearly all, clone nothing.
#[derive(Clone, Debug)]
pub struct RywService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> RywService<S> {
    pub(crate) const fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }

    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for RywService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: AnswerBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (mut present, mut named) = Present::of(request.headers());
        let protocol =
            if present.has(Present::CONTENT_TYPE) { Protocol::of(request.headers()) } else { Protocol::Http };
        if !self.config.enabled {
            return ResponseFuture::serve(&Span::none(), Scope::None, protocol, &mut self.inner, request);
        }
        let span = trace::request();
        let _entered = span.enter();
        // What only a response may say is not believed from a client, nor handed on to the service.
        if present.has(Present::ANSWERS) {
            for name in [&wire::ROUTE, &wire::CONSISTENCY_ENFORCED] {
                request.headers_mut().remove(name);
            }
            (present, named) = Present::of(request.headers());
        }
        let identity = match identify(&self.config, (&request).into(), present, named) {
            Ok(Caller::Somebody(identity)) => identity,
            Ok(Caller::Nobody { plain, tenant }) => {
                trace::identified(&span, || self.config.policy.terms_of(plain));
                let scope = Scope::Lazy { config: Arc::clone(&self.config), plain, tenant };
                return ResponseFuture::serve(&span, scope, protocol, &mut self.inner, request);
            }
            Err(refusal) => {
                self.config.refused(Refused::Invalid);
                return ResponseFuture::refuse(&span, refusal, protocol);
            }
        };
        trace::identified(&span, || identity.terms);
        match start(&self.config, identity) {
            Start::Routed(scope) => ResponseFuture::serve(&span, scope, protocol, &mut self.inner, request),
            Start::Refused(refusal) => ResponseFuture::refuse(&span, refusal, protocol),
            Start::Wait(work) => {
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                ResponseFuture::prepare(&span, work, protocol, ready, request)
            }
        }
    }
}
