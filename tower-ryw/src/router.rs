//! For when the request itself goes to a primary or a replica service.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
};

use http::Request;
use tower::util::Oneshot;
use tower_service::Service;

use ryw_core::Reason;

use crate::{context::RywContext, decide::Route, topology::NodeName};

/// Sends each request to a primary service or to one of its replicas, as the [`RywLayer`](crate::RywLayer) around it
/// has decided.
///
/// A replica is found by the name it has in the topology; where the decision names none (there are no positions), or
/// replicas take turns; a name that is not known here goes to the primary. Without a layer around it, everything goes to the primary. The
/// chosen service is made ready after the decision, so a replica that is not ready holds up only requests to itself.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ryw::{RywLayer, RywRouter};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let node = |name: &'static str| {
///     service_fn(move |_: Request<()>| async move { Ok::<_, std::convert::Infallible>(Response::new(name.to_owned())) })
/// };
/// let router = RywRouter::new(node("p"), [("r1", node("r1"))]);
/// let service = ServiceBuilder::new().layer(RywLayer::new()).service(router);
///
/// let read = service.clone().oneshot(Request::get("/").body(()).unwrap()).await.unwrap();
/// assert_eq!(read.body(), "r1");
/// let write = service.oneshot(Request::put("/").body(()).unwrap()).await.unwrap();
/// assert_eq!(write.body(), "p");
/// # }
/// ```
pub struct RywRouter<S> {
    primary: S,
    replicas: Arc<[(NodeName, S)]>,
    turn: Arc<AtomicUsize>,
}

impl<S> RywRouter<S> {
    /// A router to `primary` and to `replicas`, each with its name. Without replicas everything goes to the primary.
    pub fn new<N: Into<NodeName>>(primary: S, replicas: impl IntoIterator<Item = (N, S)>) -> Self {
        let replicas = replicas.into_iter().map(|(name, service)| (name.into(), service)).collect();
        Self { primary, replicas, turn: Arc::default() }
    }

    fn choose(&self, context: Option<&RywContext>) -> &S {
        let Some(context) = context else { return &self.primary };
        let Route::Replica { node } = context.route() else { return &self.primary };
        let named = node.and_then(|node| self.replicas.iter().find(|(name, _)| *name == node));
        let chosen = named.or_else(|| {
            let turn = self.turn.fetch_add(1, Relaxed);
            let any = self.replicas.get(turn.checked_rem(self.replicas.len())?);
            any.filter(|_| matches!(context.route(), Route::Replica { node: None }))
        });
        match chosen {
            Some((name, service)) => {
                context.served_by(Route::Replica { node: Some(name.clone()) }, context.reason(), None);
                service
            }
            // The named replica is not known here, or there is none at all: only the primary is fresh for certain.
            None => {
                context.served_by(Route::Primary, Reason::NoReplica, None);
                &self.primary
            }
        }
    }
}

impl<S, B> Service<Request<B>> for RywRouter<S>
where
    S: Service<Request<B>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Request<B>>;

    /// Always ready: which service has to be is known only once there is a request.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = request.extensions().get().cloned().or_else(RywContext::current);
        let service = self.choose(context.as_ref()).clone();
        Oneshot::new(service, request)
    }
}

impl<S: Clone> Clone for RywRouter<S> {
    fn clone(&self) -> Self {
        let Self { primary, replicas, turn } = self;
        Self { primary: primary.clone(), replicas: Arc::clone(replicas), turn: Arc::clone(turn) }
    }
}

impl<S> fmt::Debug for RywRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.replicas.iter().map(|(name, _)| name);
        f.debug_struct("RywRouter").field("replicas", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
