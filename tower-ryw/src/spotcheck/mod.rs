//! Looks for reads that did not show what their session had to see: some are made again on the primary, after the fact, and
//! the answers are compared.
//!
//! # What is a violation
//!
//! The answers of a replica and of the primary differ all the time, because something was written in between. So a difference
//! is no proof. It is one when **nothing was in between**:
//!
//! * The session had to see everything up to its mark `m`.
//! * The primary is asked, and after its answer for its position `p`. What its answer has shown lies at or before `p`, and
//!   nothing that the replica can have shown by then lies beyond it.
//! * If `p` is at or before `m`, what has been written since `m` is: nothing. Whoever shows everything up to `m` then shows
//!   exactly the same as the primary. A replica that has answered something else did not show it.
//! * If `p` is beyond `m`, the difference says nothing. It is counted as *overtaken*, whatever it was.
//!
//! The position is that of the very run of the very server that has answered, as for a write; after a failover the check is
//! *overtaken*. The primary must show `m` itself: a commit that waits for a synchronous standby is visible on a replica first.
//! Before a violation is told, the primary is asked again after a pause, and has to answer the same as before, with the same
//! proof. So an answer that is different each time (it has the time in it) is *incomparable*, and so is whatever failed, was
//! late or too large.
//!
//! Hence writes by others never make a false alarm; they make checks inconclusive. On a primary that is written to without
//! a pause, few checks decide anything, so compare `ryw_violations_total` with the checks that *agreed*. What is assumed is that
//! an answer depends on the request and the data. One that names the node it comes from, or the second it was made in, is to be
//! left out: put the layer around those routes only whose answers do not.

mod body;
mod check;

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use parking_lot::{Mutex, MutexGuard};
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, task::JoinSet};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::{context::RywContext, observe::Checked, trace};
pub use body::SpotCheckBody;
use body::{Digest, Digesting, Onlooker, TooLarge};
use check::{Check, again};

/// Checks a share of the reads that replicas serve: each is made again on the primary, after the response has left, and
/// compared by digest. What is found is told to [`Observe::checked`](crate::Observe::checked), and a violation is logged.
///
/// Put it inside of the [`RywLayer`](crate::RywLayer), right around the handlers. Checked are safe requests without a body whose
/// session had to see something, where there are positions; a handler that says that it has written is not called again. A
/// check costs the primary a read, or two where the answers differ. The number of checks under way is bounded, and what does
/// not fit is counted as skipped. Responses are not held back: a digest is taken as their bytes pass. Dropping the layer and
/// its services ends the checks.
///
/// ```
/// # use axum::{Router, routing::get};
/// use tower_ryw::{RywLayer, SpotCheckLayer};
///
/// let app: Router = Router::new()
///     .route("/notes/{id}", get(|| async { "a note" }))
///     .layer(SpotCheckLayer::one_in(1000))
///     .layer(RywLayer::new());
/// ```
///
/// # What is a violation
///
/// The replica's answer differs from the primary's, although **nothing was written** after what the session had to see: the
/// primary's position, asked for after its answer, is at or before the session's mark. Then there is only one right answer.
/// A difference with a write in between is *overtaken*, and proves nothing. So writes by others make no false alarms, and a
/// primary that is written to without a pause makes few checks decide. What is assumed is that an answer depends on the
/// request and the data alone; where it names its node, it is not to be checked.
#[derive(Clone, Debug)]
pub struct SpotCheckLayer {
    settings: Arc<Settings>,
    under_way: Arc<UnderWay>,
}

#[derive(Clone, Debug)]
struct Settings {
    one_in: u32,
    max_body: usize,
    in_flight: usize,
    deadline: Duration,
    confirm_after: Duration,
    keys: (u64, u64),
}

/// The checks' owner: they end with it.
#[derive(Debug, Default)]
struct UnderWay(Mutex<JoinSet<()>>);

impl SpotCheckLayer {
    /// Checks one in so many reads, drawn at random; 0 checks none, and then the layer costs a comparison of two numbers.
    #[must_use]
    pub fn one_in(reads: u32) -> Self {
        let settings = Settings {
            one_in: reads,
            max_body: 256 << 10,
            in_flight: 4,
            deadline: Duration::from_secs(5),
            confirm_after: Duration::from_millis(200),
            keys: (fastrand::u64(..), fastrand::u64(..)),
        };
        Self { settings: Arc::new(settings), under_way: Arc::default() }
    }

    /// How many bytes of an answer are compared; a larger one is not. Default: 256 KiB.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.with(|settings| settings.max_body = bytes)
    }

    /// How many checks may be under way. Default: 4.
    #[must_use]
    pub fn in_flight(self, checks: usize) -> Self {
        self.with(|settings| settings.in_flight = checks)
    }

    /// How long one check may take. Default: 5 s.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|settings| settings.deadline = deadline)
    }

    /// How long to wait before the primary is asked again, where its answer differs. Default: 200 ms.
    #[must_use]
    pub fn confirm_after(self, pause: Duration) -> Self {
        self.with(|settings| settings.confirm_after = pause)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl Settings {
    fn draws(&self) -> bool {
        self.one_in > 0 && fastrand::u32(..self.one_in) == 0
    }
}

impl UnderWay {
    /// Room for one more; `None` where there is none, or nothing to run it.
    fn room(&self, limit: usize) -> Option<Room<'_>> {
        let runtime = Handle::try_current().ok()?;
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        (tasks.len() < limit).then_some(Room { tasks, runtime })
    }
}

/// A place among the checks that are under way.
struct Room<'a> {
    tasks: MutexGuard<'a, JoinSet<()>>,
    runtime: Handle,
}

impl Room<'_> {
    fn start(mut self, check: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(check, &self.runtime);
    }
}

impl<S> Layer<S> for SpotCheckLayer {
    type Service = SpotChecks<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SpotChecks { inner, layer: self.clone() }
    }
}

/// See [`SpotCheckLayer`].
#[derive(Clone, Debug)]
pub struct SpotChecks<S> {
    inner: S,
    layer: SpotCheckLayer,
}

impl<S, B, R> Service<Request<B>> for SpotChecks<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + Default + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    type Response = Response<SpotCheckBody<R>>;
    type Error = S::Error;
    type Future = SpotCheckFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let drawn = if self.layer.settings.draws() { candidate(&request) } else { None };
        let candidate = drawn.map(|context| {
            let (service, request) = (self.inner.clone(), again(&request));
            Box::new(Candidate { context, service, request, layer: self.layer.clone() })
        });
        SpotCheckFuture { response: self.inner.call(request), candidate }
    }
}

/// The context of a request that may be checked. Without one, nothing was promised.
fn candidate<B: Body>(request: &Request<B>) -> Option<RywContext> {
    let context = request.extensions().get::<RywContext>()?;
    // A connection that is upgraded belongs to the one handler that takes it.
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    let is_plain = request.method().is_safe() && request.body().is_end_stream() && !is_upgrade;
    (is_plain && context.is_promised()).then(|| context.clone())
}

struct Candidate<S, B> {
    context: RywContext,
    service: S,
    request: Request<B>,
    layer: SpotCheckLayer,
}

impl<S, B, R> Candidate<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + Default + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    /// The head is there, and with it who has served.
    fn onlooker(self, head: &Response<R>) -> Option<Onlooker> {
        let Self { context, service, request, layer } = self;
        let node = context.replica()?;
        let SpotCheckLayer { settings, under_way } = layer;
        let digesting = Digesting::new(settings.keys, settings.max_body, head.status());
        // Now, while the request's own span is open, so that it can be linked to.
        let span = trace::check(&Span::current());
        let limit = settings.in_flight;
        let check = Check { settings, context, node, service, request, span };
        if !check::shows_data(head.status()) {
            check.tell(Checked::Incomparable);
            return None;
        }
        let then = move |answered: Result<Digest, TooLarge>| {
            let Ok(answered) = answered else { return check.tell(Checked::Incomparable) };
            match under_way.room(limit) {
                Some(room) => room.start(check.run(answered)),
                None => check.tell(Checked::Skipped),
            }
        };
        Some(Onlooker { digesting, then: Box::new(then) })
    }
}

pin_project! {
    /// The response of a [`SpotChecks`].
    pub struct SpotCheckFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        response: S::Future,
        candidate: Option<Box<Candidate<S, B>>>,
    }
}

impl<S, B, R> Future for SpotCheckFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + Default + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    type Output = Result<Response<SpotCheckBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.response.poll(cx))?;
        let onlooker = mem::take(this.candidate).and_then(|candidate| candidate.onlooker(&response));
        Poll::Ready(Ok(response.map(|body| SpotCheckBody::new(body, onlooker))))
    }
}

impl<S, B> fmt::Debug for SpotCheckFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpotCheckFuture")
    }
}
