//! One check: what the primary answers, and whether a difference proves anything.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower::util::Oneshot;
use tower_service::Service;
use tracing::{Instrument, Span};

use super::{
    Settings,
    body::{Digest, Digesting},
};
use crate::{
    context::RywContext,
    observe::{Checked, SpotCheck},
    topology::NodeName,
    trace,
};

/// A read that a replica has served, and everything that it takes to make it again.
pub(super) struct Check<S, B> {
    pub(super) settings: Arc<Settings>,
    pub(super) context: RywContext,
    pub(super) node: Option<NodeName>,
    pub(super) service: S,
    pub(super) request: Request<B>,
    pub(super) span: Span,
}

impl<S, B, R> Check<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Body + Default,
    R: Body<Data = Bytes>,
{
    /// Compares what the replica has answered, and tells what was found.
    pub(super) async fn run(mut self, answered: Digest) {
        let span = self.span.clone();
        let checking = async {
            let found = timeout(self.settings.deadline, self.compare(answered)).await;
            self.tell(found.unwrap_or(Checked::Incomparable));
        };
        checking.instrument(span).await;
    }

    /// Tells of a check that could not be made.
    pub(super) fn tell(&self, found: Checked) {
        let node = self.node.as_ref().map(NodeName::as_str);
        trace::checked(&self.span, found, node);
        let _entered = self.span.enter();
        self.context.config().checked(&SpotCheck {
            found,
            node,
            level: self.context.level(),
            required: self.context.marks(),
        });
    }

    async fn compare(&mut self, answered: Digest) -> Checked {
        let mut before = None;
        for pause in [Duration::ZERO, self.settings.confirm_after] {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            // Otherwise the primary might be the one that is behind.
            if !self.context.is_visible_on_primary() {
                return Checked::Overtaken;
            }
            let context = self.context.on_primary();
            let Some(digest) = context.scope(self.ask(&context)).await else { return Checked::Incomparable };
            if digest == answered {
                return Checked::Agreed;
            }
            if before.is_some_and(|before| before != digest) {
                return Checked::Incomparable;
            }
            before = Some(digest);
            // Asked for after the answer, so that it contains all that the answer may have shown.
            match context.shown_by_primary().await {
                None => return Checked::Incomparable,
                Some(shown) if !self.context.has_to_see(&shown) => return Checked::Overtaken,
                Some(_) => {}
            }
        }
        Checked::Violation
    }

    /// What the primary answers; `None` where that can't be compared.
    fn ask(&self, context: &RywContext) -> impl Future<Output = Option<Digest>> + use<S, B, R> {
        let mut request = again(&self.request);
        request.extensions_mut().insert(context.clone());
        let answer = Oneshot::new(self.service.clone(), request);
        let (keys, room) = (self.settings.keys, self.settings.max_body);
        async move {
            let (head, body) = answer.await.ok().filter(|answer| shows_data(answer.status()))?.into_parts();
            let mut digesting = Digesting::new(keys, room, head.status);
            let mut body = std::pin::pin!(body);
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.ok()?.into_data() {
                    digesting.take(&data).ok()?;
                }
            }
            Some(digesting.digest())
        }
    }
}

/// Whether an answer of this status comes from the data, and not from trouble on the way to it.
pub(super) fn shows_data(status: StatusCode) -> bool {
    let is_passing =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    !(status.is_informational() || status.is_server_error() || is_passing)
}

/// The same request, without a body.
pub(super) fn again<A, B: Default>(request: &Request<A>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}
