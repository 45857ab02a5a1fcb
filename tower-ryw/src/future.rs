//! The order of the stages, and what happens when it is cut short.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use ryw_core::{
    Reason,
    seeded::{Bug, is_on},
};
use tokio::sync::oneshot;
use tower_service::Service;
use tracing::{Instrument, Span};

use crate::{
    config::Config,
    context::{Ended, RywContext, Scope},
    identify::Identity,
    lookup::{self, Lookup, Required},
    observe::{Refused, Trouble},
    outcome::{Outcome, is_conflict, is_failure, is_turned_away, outcome, unanswered},
    policy::Intent,
    problem::{AnswerBody, Protocol, Refusal},
    record::{Announcement, Effect, Saved, announce, hold_announced, record, record_now},
    route::{Asked, Attempt, attempt_in, route},
    trace,
};

pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The response of a [`RywService`](crate::RywService).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        // Dropped first: whatever cuts the request short, its mark is made before the handler's remains go.
        guard: Guard,
        protocol: Protocol,
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
        // Marks or a replica are waited for; the service is ready and not yet called.
        Prepare { held: Option<(S, Request<B>)>, work: Work<Prepared> },
        // The service is at work.
        Serve { #[pin] response: S::Future },
        // The answer is held back until its mark is safe: also an error, after which a client may ask again.
        Record { answer: Option<Result<S::Response, S::Error>>, work: Work<Saved> },
        Refuse { refusal: Refusal },
        Done,
    }
}

pub(crate) type Prepared = Result<Admitted, Refusal>;

/// A request that may be served.
pub(crate) struct Admitted {
    pub(crate) scope: Scope,
    pub(crate) announced: Option<Announced>,
}

pub(crate) struct Announced {
    announcement: Arc<Announcement>,
    /// Dropped when the request has ended: what was announced need not be announced again.
    _under_way: oneshot::Sender<Infallible>,
}

/// Makes sure that a request which may have written leaves a mark, however it ends.
pub(crate) struct Guard {
    scope: Scope,
    span: Span,
    /// The service has been called, and what it did has not been recorded yet.
    armed: bool,
    announced: Option<Announced>,
}

impl Guard {
    const fn new(span: Span, scope: Scope, armed: bool) -> Self {
        Self { scope, span, armed, announced: None }
    }

    /// Something that was announced, if need be, and has begun.
    pub(crate) fn announced(span: Span, scope: Scope, announced: Option<Announced>) -> Self {
        let mut guard = Self::new(span, scope, true);
        guard.announced = announced;
        guard
    }

    /// Whether what was announced has been so without a gap; `None` where nothing was.
    pub(crate) fn was_held(&self) -> Option<bool> {
        was_held(self.announced.as_ref())
    }

    /// The request has ended, and its effect is recorded.
    pub(crate) fn disarm(&mut self) {
        (self.armed, self.announced) = (false, None);
    }
}

fn was_held(announced: Option<&Announced>) -> Option<bool> {
    announced.map(|announced| announced.announcement.is_held())
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Disarmed once the request has ended and its effect is recorded: there is nothing left to do.
        let Some(context) = self.scope.ready().filter(|_| self.armed && !is_on(Bug::Cancel)) else { return };
        if unanswered(context.identity().terms.intent, context.end().told) == Outcome::Unknown {
            // This may run while a panic unwinds: one in somebody's observer must not end the process.
            let recorded = catch_unwind(AssertUnwindSafe(|| {
                let saved = context.record_unknown();
                context.report(&self.span, &context.summary(Some(&saved)));
            }));
            if recorded.is_err() {
                tracing::error!("an observer or a mark store panicked");
            }
        }
    }
}

/// What can be said about a request without waiting for anything.
pub(crate) enum Start {
    Routed(Scope),
    Refused(Refusal),
    /// The slow way.
    Wait(Work<Prepared>),
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Start")
    }
}

pub(crate) fn start(config: &Arc<Config>, identity: Identity) -> Start {
    if let Some(plain) = identity.passthrough() {
        let config = Arc::clone(config);
        return Start::Routed(if identity.arrived.is_some() || identity.path.is_some() {
            Scope::Watched(Box::new((config, identity)))
        } else {
            Scope::Lazy { config, plain, tenant: identity.tenant }
        });
    }
    let loaded = match lookup::load(config, &identity).now() {
        Ok(loaded) => loaded,
        Err(store) => {
            let config = Arc::clone(config);
            return Start::Wait(Box::pin(async move {
                let required = lookup::find_out(&config, &identity, store).await;
                prepare(config, identity, required).await
            }));
        }
    };
    // One picture for all that follows, and none from before the store was asked: what is newer than it would be waited for.
    let view = config.topology.as_ref().map(|topology| topology.view());
    let view = view.as_ref().map(|view| &***view);
    let required = match lookup::required(config, view, &identity, loaded) {
        Lookup::Done(required) => required,
        Lookup::Unsettled(required, unsettled) => {
            let config = Arc::clone(config);
            return Start::Wait(Box::pin(async move {
                let required = lookup::settle(&config, &identity, required, &unsettled).await;
                prepare(config, identity, required).await
            }));
        }
    };
    let may_wait = !identity.terms.ladder.wait.is_zero();
    let asked = Asked { may_wait, ..Asked::new(&identity.terms, &required) };
    match attempt_in(view, config, asked) {
        Attempt::Routed(routing) => {
            let is_announced = identity.terms.is_announced();
            let scope = Scope::new(Arc::clone(config), identity, required, routing);
            if is_announced { Start::Wait(Box::pin(admit(Arc::clone(config), scope))) } else { Start::Routed(scope) }
        }
        Attempt::Refused(reason) => Start::Refused(refuse(config, &required, reason)),
        Attempt::Wait { .. } => Start::Wait(Box::pin(prepare(Arc::clone(config), identity, required))),
    }
}

pub(crate) async fn prepare(config: Arc<Config>, identity: Identity, required: Required) -> Prepared {
    match route(&config, &identity, &required).await {
        Ok(routing) => admit(Arc::clone(&config), Scope::new(config, identity, required, routing)).await,
        Err(reason) => Err(refuse(&config, &required, reason)),
    }
}

/// Where everybody has to know of a write before it is made, this waits until they do.
async fn admit(config: Arc<Config>, scope: Scope) -> Prepared {
    let announcing = scope.ready().filter(|context| context.identity().terms.is_announced());
    let (Some(context), Some(store)) = (announcing, &config.given_store) else {
        return Ok(Admitted { scope, announced: None });
    };
    let keys = context.keys_to_mark();
    let announcement = match announce(store, &config, &keys).await {
        Ok(announcement) => announcement,
        Err(error) => {
            if config.stats.may_log_trouble(Trouble::Unannounced) {
                tracing::warn!(%error, "a write is refused: it can't be announced");
            }
            config.refused(Refused::NotAnnounced);
            return Err(Refusal::not_announced());
        }
    };
    // As of a write that was cut short and may still commit, until it has ended.
    let (under_way, ended) = oneshot::channel();
    hold_announced(&config, keys, Box::pin(async move { drop(ended.await) }), Arc::clone(&announcement));
    Ok(Admitted { scope, announced: Some(Announced { announcement, _under_way: under_way }) })
}

fn refuse(config: &Config, required: &Required, reason: Reason) -> Refusal {
    config.refused(Refused::NotFresh(reason));
    let lost = config.topology.as_ref().and_then(|topology| topology.view().lost(&required.marks));
    match lost.filter(|_| reason == Reason::Lost) {
        Some(lost) => {
            config.lost_told(lost);
            Refusal::Lost(lost)
        }
        None => Refusal::behind(reason),
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    /// Within the request's span.
    pub(crate) fn serve(
        span: &Span,
        scope: Scope,
        protocol: Protocol,
        service: &mut S,
        mut request: Request<B>,
    ) -> Self {
        attach(&scope, &mut request);
        let mut guard = Guard::new(span.clone(), scope, true);
        let response = guard.scope.enter(|| service.call(request));
        Self { guard, protocol, state: State::Serve { response } }
    }

    /// Within the request's span.
    pub(crate) fn prepare(
        span: &Span,
        work: Work<Prepared>,
        protocol: Protocol,
        service: S,
        request: Request<B>,
    ) -> Self {
        let guard = Guard::new(span.clone(), Scope::None, false);
        let work = Box::pin(work.instrument(trace::prepare()));
        Self { guard, protocol, state: State::Prepare { held: Some((service, request)), work } }
    }

    pub(crate) fn refuse(span: &Span, refusal: Refusal, protocol: Protocol) -> Self {
        let guard = Guard::new(span.clone(), Scope::None, false);
        Self { guard, protocol, state: State::Refuse { refusal } }
    }
}

fn attach<B>(scope: &Scope, request: &mut Request<B>) {
    if let Some(context) = scope.ready() {
        request.extensions_mut().insert(context.clone());
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: AnswerBody,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Guard { scope, span, armed, announced } = this.guard;
        let _entered = span.enter();
        loop {
            match this.state.as_mut().project() {
                Stage::Prepare { held, work } => {
                    let prepared = ready!(work.as_mut().poll(cx));
                    let held = held.take();
                    match (prepared, held) {
                        (Ok(admitted), Some((mut service, mut request))) => {
                            (*scope, *announced) = (admitted.scope, admitted.announced);
                            attach(scope, &mut request);
                            *armed = true;
                            let response = scope.enter(|| service.call(request));
                            this.state.set(State::Serve { response });
                        }
                        (Err(refusal), _) => this.state.set(State::Refuse { refusal }),
                        (_, None) => this.state.set(State::Done),
                    }
                }
                Stage::Serve { response } => {
                    let mut answer = ready!(scope.enter(|| response.poll(cx)));
                    let Some(context) = scope.ready() else {
                        this.state.set(State::Done);
                        return Poll::Ready(answer);
                    };
                    match after(context, &answer, was_held(announced.as_ref())) {
                        Ok(saved) => {
                            finish(context, span, *this.protocol, saved, &mut answer);
                            (*armed, *announced) = (false, None);
                            this.state.set(State::Done);
                            return Poll::Ready(answer);
                        }
                        Err(work) if is_on(Bug::LateMark) => {
                            tokio::spawn(work);
                            finish(context, span, *this.protocol, None, &mut answer);
                            (*armed, *announced) = (false, None);
                            this.state.set(State::Done);
                            return Poll::Ready(answer);
                        }
                        Err(work) => this.state.set(State::Record { answer: Some(answer), work }),
                    }
                }
                Stage::Record { answer, work } => {
                    let saved = ready!(work.as_mut().poll(cx));
                    let answer = answer.take();
                    let context = scope.ready().cloned();
                    (*armed, *announced) = (false, None);
                    this.state.set(State::Done);
                    if let (Some(mut answer), Some(context)) = (answer, context) {
                        context.recorded(saved.event);
                        finish(&context, span, *this.protocol, Some(saved), &mut answer);
                        return Poll::Ready(answer);
                    }
                }
                Stage::Refuse { refusal } => {
                    trace::refused(span, refusal.reason());
                    let response = refusal.response(*this.protocol);
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(response));
                }
                Stage::Done => panic!("polled after it had been answered"),
            }
        }
    }
}

/// What there is to do once the service has answered: nothing or little, or work that takes time.
fn after<R, E>(
    context: &RywContext,
    answer: &Result<Response<R>, E>,
    was_held: Option<bool>,
) -> Result<Option<Saved>, Work<Saved>> {
    let Some(ended) = context.end_of_more_than_a_read() else { return Ok(context.replace_dead_cookie()) };
    let intent = context.identity().terms.intent;
    let found = match answer {
        Ok(response) => outcome(intent, ended.told, response),
        Err(_) => unanswered(intent, ended.told),
    };
    let shows = matches!(answer, Ok(response) if !response.status().is_server_error());
    conclude(context, ended, found, shows, was_held)
}

/// The same for whatever has come to an end: `shows` is whether somebody has seen what it read.
pub(crate) fn conclude(
    context: &RywContext,
    ended: Ended,
    found: Outcome,
    shows: bool,
    was_held: Option<bool>,
) -> Result<Option<Saved>, Work<Saved>> {
    let terms = &context.identity().terms;
    let effect = match found {
        Outcome::Unknown => Effect::Unknown,
        Outcome::Committed => {
            Effect::Write { known: ended.written, shown: terms.reads_raise_marks, served: ended.served }
        }
        // "Not found" and "not modified" show what is there as well.
        Outcome::NotWritten if terms.reads_raise_marks && shows && !is_on(Bug::NoMr) => {
            Effect::Read { served: ended.served }
        }
        Outcome::NotWritten => return Ok(context.replace_dead_cookie()),
    };
    let keys = context.keys_to_mark();
    if matches!(effect, Effect::Unknown) {
        context.hold_unfinished(&keys);
    }
    match record_now(context.config(), &keys, effect) {
        Ok(saved) => {
            context.recorded(saved.event);
            Ok(Some(saved))
        }
        Err(effect) => {
            let recorded =
                record(Arc::clone(context.config()), keys, context.required().marks.clone(), effect, was_held);
            Err(Box::pin(recorded.instrument(trace::record())))
        }
    }
}

fn finish<R, E>(
    context: &RywContext,
    span: &Span,
    protocol: Protocol,
    saved: Option<Saved>,
    answer: &mut Result<Response<R>, E>,
) {
    let saved = saved.as_ref();
    let mut summary = if answer.is_ok() { context.last_summary(saved) } else { context.summary(saved) };
    context.report(span, &summary);
    let writes = context.identity().terms.intent == Intent::Write;
    if writes && answer.as_ref().is_ok_and(is_conflict) {
        context.config().conflicted();
    }
    if let Some(saved) = saved {
        trace::recorded(span, saved.event, &saved.marks);
    }
    if let Ok(response) = answer {
        // A read that has failed keeps no promise. Of a write that has failed it is told whether the session will see what it
        // may have done.
        summary.achieved &= writes || !is_failure(protocol, response);
        let claims_nothing = summary.achieved && is_turned_away(response);
        let enforced = (!claims_nothing).then_some(summary.achieved);
        context.annotate(summary, enforced, response.headers_mut());
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("context", &self.guard.scope.ready()).finish_non_exhaustive()
    }
}
