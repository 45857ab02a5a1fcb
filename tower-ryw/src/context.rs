//! What a handler can know and say about its request: reachable as a request extension, as a task-local, and, with
//! the feature `axum`, as an extractor.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use ryw_core::{Level, Lost, Marks, Position, Reason, SessionId, Subject, SubjectKey, Tenant, Token};
use tokio::task::JoinHandle;

use crate::{
    annotate::Note,
    config::{Config, Permit},
    decide::{Decision, Route},
    identify::Identity,
    lookup::Required,
    observe::{Recorded, Routed},
    outcome::Told,
    policy::{Intent, Terms},
    record::{Effect, Saved, record_unknown},
    route::{Attempt, Routing, attempt},
    topology::NodeName,
};

/// Most subjects that one request may add with [`RywContext::on_behalf_of`].
const MAX_SUBJECTS: usize = 64;

/// One request's side of tower-ryw. Cheap to clone; all clones are the same request.
///
/// ```
/// use tower_ryw::RywContext;
///
/// async fn handler() {
///     if let Some(ryw) = RywContext::current() {
///         // A GET that counts views has written all the same.
///         ryw.mark_written();
///     }
/// }
/// ```
#[derive(Clone)]
pub struct RywContext(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    identity: Identity,
    required: Required,
    decision: Decision,
    progress: Mutex<Progress>,
}

/// What has happened to the request so far.
#[derive(Default)]
struct Progress {
    told: Told,
    /// Where its writes are, as far as the handler has said.
    written: Marks,
    /// Whom else they concern.
    others: Vec<SubjectKey>,
    /// The session that was born with this request.
    born: Option<(SessionId, SubjectKey)>,
    /// Who has really served it, in the order of their first use; empty where nobody has said.
    served: Vec<(Route, Reason)>,
    /// The response has left, or never will.
    closed: bool,
}

/// What is known of a request when it ends.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) told: Told,
    /// What it is recorded as if its writes are committed.
    pub(crate) write: Effect,
    /// What it is recorded as if it only read.
    pub(crate) read: Effect,
}

/// A subject could not be added: a request may mark at most 64 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request can mark at most {MAX_SUBJECTS} subjects on behalf of others; mark the rest from a job of its own")]
pub struct TooManySubjects;

impl RywContext {
    /// The context of the request that this task is serving: inside the layer's call, and inside tasks started with
    /// [`spawn`](Self::spawn) or wrapped by [`scope`](Self::scope). A plain `tokio::spawn` does not inherit it.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| current.try_borrow_mut().ok()?.context()).ok().flatten()
    }

    /// Where the request is to be served.
    #[must_use]
    pub fn route(&self) -> Route {
        self.0.decision.route.clone()
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.decision.reason
    }

    /// At which level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.0.identity.terms.level
    }

    /// How long the request waited for a replica.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.0.decision.waited
    }

    /// What the request must be able to see.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.0.required.marks
    }

    /// The session's name, where the client told it.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        self.0.identity.session.as_ref()
    }

    /// The request has written, or is about to, although it is classified as a read.
    ///
    /// Call it before the write: from then on a disconnect, a timeout or a panic leaves a mark too. After the response
    /// has left (in a task started with [`spawn`](Self::spawn)) it marks the session at once, as if the outcome of the
    /// write were unknown; call it again when the write has committed.
    pub fn mark_written(&self) {
        let closed = {
            let mut progress = self.0.progress.lock();
            progress.told = Told::Written;
            progress.closed
        };
        if closed {
            self.record_unknown();
        }
    }

    /// The request has certainly written nothing, although it is classified as a write: nothing is marked.
    pub fn mark_not_written(&self) {
        self.0.progress.lock().told = Told::NotWritten;
    }

    /// The request's writes are committed, and `position` contains them: the primary is not asked for its position.
    /// It must have been read after the commit. After the response has left, as [`mark_written`](Self::mark_written).
    pub fn mark_written_at(&self, position: Position) {
        self.0.progress.lock().written.join(&Marks::at(position));
        self.mark_written();
    }

    /// The request's writes concern `subject` as well: whoever names it sees them.
    ///
    /// # Errors
    /// [`TooManySubjects`] when 64 have been added already.
    pub fn on_behalf_of(&self, subject: &Subject) -> Result<(), TooManySubjects> {
        self.on_behalf_of_in(&self.0.identity.tenant, subject)
    }

    /// As [`on_behalf_of`](Self::on_behalf_of), for a subject of another tenant than the request's: where the tenant
    /// is known to the handler only.
    ///
    /// # Errors
    /// [`TooManySubjects`] when 64 have been added already.
    pub fn on_behalf_of_in(&self, tenant: &Tenant, subject: &Subject) -> Result<(), TooManySubjects> {
        let key = self.0.config.keys.newest().subject(tenant, subject);
        let mut progress = self.0.progress.lock();
        if progress.others.len() >= MAX_SUBJECTS {
            return Err(TooManySubjects);
        }
        progress.others.push(key);
        Ok(())
    }

    /// A token with everything the session must see so far, to put into a job or a message. A write of this very
    /// request is in it once the handler has told its position. `None` when the request has no session.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        let mut marks = self.0.required.marks.clone();
        let progress = self.0.progress.lock();
        marks.join(&progress.written);
        // A write has not looked up what its session wrote before; a position of its own would contain it.
        let writes = self.0.identity.terms.intent == Intent::Write || progress.told == Told::Written;
        if writes && progress.written.is_none() {
            marks.join(&Marks::unknown());
        }
        drop(progress);
        self.seal(marks, false)
    }

    /// Tells who has really served the request, or a part of it. For data layers: the response then says so, and what
    /// every one of them has shown counts for the session's later reads. The primary goes before replicas.
    pub fn served_by(&self, route: Route, reason: Reason) {
        let served = &mut self.0.progress.lock().served;
        if served.iter().all(|(known, _)| *known != route) {
            served.push((route, reason));
        }
    }

    /// Spawns a task that keeps this context.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as `tokio::spawn`.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.scope(future))
    }

    /// The same future, with this context as the [current](Self::current) one.
    pub fn scope<F: Future>(&self, future: F) -> WithContext<F> {
        WithContext { future, scope: Scope::Ready { context: self.clone(), permit: None } }
    }

    fn new(config: Arc<Config>, identity: Identity, required: Required, decision: Decision) -> Self {
        Self(Arc::new(Inner { config, identity, required, decision, progress: Mutex::default() }))
    }

    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Ends the request: what the handler has said until now is recorded with it, and what its tasks say from here on
    /// is recorded when they say it. Nothing falls in between.
    pub(crate) fn end(&self) -> Ended {
        let mut progress = self.0.progress.lock();
        progress.closed = true;
        let from = match progress.served.as_slice() {
            [] => vec![self.route()],
            served => served.iter().map(|(route, _)| route.clone()).collect(),
        };
        let shown = self.0.identity.terms.reads_raise_marks;
        Ended {
            told: progress.told,
            write: Effect::Write { known: progress.written.clone(), shown },
            read: Effect::Read { from },
        }
    }

    /// A browser's cookie that can't be believed is replaced by a new session, which starts with what was required
    /// because of it. Only the client keeps that: reads don't fill the store.
    pub(crate) fn replace_dead_cookie(&self) -> Option<Saved> {
        let Inner { identity, required, config, .. } = &*self.0;
        let dead = identity.by_cookie && !identity.has_session && identity.terms.level.follows_marks();
        let marks = match &config.topology {
            Some(_) => required.marks.clone(),
            None => Marks::pending(),
        };
        if !dead || marks.is_unknown() {
            return None;
        }
        self.keys_to_mark();
        Some(Saved { marks, event: Recorded::Read, settles: true })
    }

    /// Whom the request's writes concern. A session is born here, with the first thing there is to remember of it.
    pub(crate) fn keys_to_mark(&self) -> Vec<SubjectKey> {
        let Inner { config, identity, progress, .. } = &*self.0;
        let mut progress = progress.lock();
        if !identity.has_session && progress.born.is_none() {
            match SessionId::random() {
                Ok(session) => {
                    let key = config.keys.newest().session(&identity.tenant, &session);
                    progress.born = Some((session, key));
                }
                Err(error) => tracing::error!(%error, "no session could be started"),
            }
        }
        let born = progress.born.iter().map(|(_, key)| key);
        identity.keys.iter().chain(born).chain(&progress.others).copied().collect()
    }

    /// Records that nobody knows what became of the request's writes.
    pub(crate) fn record_unknown(&self) -> Saved {
        let Inner { config, identity, progress, .. } = &*self.0;
        let keys: Vec<_> = {
            let progress = progress.lock();
            let born = progress.born.iter().map(|(_, key)| key);
            identity.keys.iter().chain(born).chain(&progress.others).copied().collect()
        };
        let saved = record_unknown(config, &keys);
        config.recorded(saved.event);
        saved
    }

    /// Counts where the request has gone.
    pub(crate) fn report(&self) {
        let (route, reason) = self.served();
        let node = match &route {
            Route::Replica { node } => node.as_ref().map(NodeName::as_str),
            Route::Primary => None,
        };
        self.0.config.routed(&Routed {
            primary: route == Route::Primary,
            node,
            reason,
            level: self.level(),
            waited: self.waited(),
            achieved: self.0.decision.achieved,
        });
    }

    fn served(&self) -> (Route, Reason) {
        let progress = self.0.progress.lock();
        let primary = progress.served.iter().find(|(route, _)| *route == Route::Primary);
        let told = primary.or(progress.served.first());
        told.cloned().unwrap_or_else(|| (self.route(), self.reason()))
    }

    /// Writes onto the response what the client is told.
    pub(crate) fn annotate(&self, saved: Option<Saved>, headers: &mut http::HeaderMap) {
        let Inner { config, identity, required, decision, progress } = &*self.0;
        let born = progress.lock().born.clone().map(|(session, _)| session);
        let (route, reason) = self.served();
        let recorded = saved.as_ref().map(|saved| saved.event);
        let token = saved.and_then(|saved| {
            let mut marks = required.marks.clone();
            if saved.settles {
                marks = marks.without_unknown();
            }
            marks.join(&saved.marks);
            let fresh = saved.marks.is_pending();
            (marks != required.marks || born.is_some()).then(|| self.seal(marks, fresh)).flatten()
        });
        let note = Note {
            route: &route,
            reason,
            level: identity.terms.level,
            waited: decision.waited,
            achieved: decision.achieved && !matches!(recorded, Some(Recorded::WithoutPosition | Recorded::NotStored)),
            session: born.as_ref().or(identity.session.as_ref()),
            token,
            set_cookie: identity.by_cookie || born.is_some(),
            lost: self.lost(),
        };
        crate::annotate::annotate(config, note, headers);
    }

    fn lost(&self) -> Option<Lost> {
        let Inner { config, required, decision, .. } = &*self.0;
        if let Some(lost) = required.marks.lost() {
            return Some(lost);
        }
        if decision.reason != Reason::Lost {
            return None;
        }
        let view = config.topology.as_ref()?.view();
        let lineage = view.lineage.as_ref()?;
        let was = required.marks.positions().iter().map(|position| position.epoch()).min()?;
        Some(Lost { epoch: lineage.current(), was })
    }

    /// `fresh`: a write is on its way since now. Otherwise a *pending* that was carried here keeps its time.
    fn seal(&self, marks: Marks, fresh: bool) -> Option<String> {
        let Inner { config, identity, progress, .. } = &*self.0;
        let session = match identity.has_session {
            true => *identity.keys.first()?,
            false => progress.lock().born.as_ref()?.1,
        };
        let now = u32::try_from(config.clock.now().as_secs()).unwrap_or(u32::MAX);
        let since = identity.carried.pending_since;
        let issued_at = if marks.is_pending() && !fresh && since > 0 { since } else { now };
        Some(Token { session, issued_at, marks }.seal(&config.keys, &identity.tenant))
    }
}

impl fmt::Debug for RywContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { identity, decision, .. } = &*self.0;
        f.debug_struct("RywContext")
            .field("level", &identity.terms.level)
            .field("decision", decision)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> axum_core::extract::FromRequestParts<S> for RywContext {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().or_else(Self::current).ok_or(MissingLayer)
    }
}

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> axum_core::extract::OptionalFromRequestParts<S> for RywContext {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned().or_else(Self::current))
    }
}

/// The handler asks for a [`RywContext`], but its route is not inside a `RywLayer`.
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this route is not inside a RywLayer: add `.layer(RywLayer::new())` after it (also check for two versions of tower-ryw)"
)]
pub struct MissingLayer;

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for MissingLayer {
    fn into_response(self) -> axum_core::response::Response {
        tracing::error!(error = %self, "misconfigured route");
        (http::StatusCode::INTERNAL_SERVER_ERROR, "misconfigured route").into_response()
    }
}

thread_local! {
    static CURRENT: RefCell<Scope> = const { RefCell::new(Scope::None) };
}

/// What belongs to the request that is being polled.
#[derive(Default)]
pub(crate) enum Scope {
    /// No layer, or one that is switched off.
    #[default]
    None,
    /// A request of which nothing has to be remembered: its context is made when somebody asks for it.
    Lazy { config: Arc<Config>, terms: Terms, tenant: Tenant },
    /// A request with a context, and its place in the primary's budget.
    Ready {
        context: RywContext,
        #[expect(dead_code, reason = "held for as long as the request is served")]
        permit: Option<Permit>,
    },
}

impl Scope {
    pub(crate) fn new(config: Arc<Config>, identity: Identity, routing: Routing) -> Self {
        let Routing { required, decision, permit } = routing;
        Self::Ready { context: RywContext::new(config, identity, required, decision), permit }
    }

    /// The context, made now if need be.
    pub(crate) fn context(&mut self) -> Option<RywContext> {
        if let Self::Lazy { config, terms, tenant } = self {
            let required = Required::default();
            let routing = match attempt(config, terms, &required, Duration::ZERO, false) {
                Attempt::Routed(routing) => routing,
                // Nothing can serve. The handler is running already, so it is the data layer that will fail.
                Attempt::Refused(reason) => refused(required, reason),
                Attempt::Wait { .. } => refused(required, Reason::Behind),
            };
            *self = Self::new(Arc::clone(config), Identity::nobody(tenant.clone(), *terms), routing);
        }
        self.ready().cloned()
    }

    /// The context, if there is one.
    pub(crate) fn ready(&self) -> Option<&RywContext> {
        match self {
            Self::Ready { context, .. } => Some(context),
            Self::None | Self::Lazy { .. } => None,
        }
    }

    /// Runs `f` with this scope as the current one, also when it panics.
    pub(crate) fn enter<R>(&mut self, f: impl FnOnce() -> R) -> R {
        struct Swapped<'a>(&'a mut Scope);
        impl Drop for Swapped<'_> {
            fn drop(&mut self) {
                swap_current(self.0);
            }
        }
        swap_current(self);
        let _swapped = Swapped(self);
        f()
    }
}

fn swap_current(scope: &mut Scope) {
    // Fails only while the thread ends or inside of `current`, where no request is polled.
    let _ = CURRENT.try_with(|current| {
        if let Ok(mut current) = current.try_borrow_mut() {
            mem::swap(&mut *current, scope);
        }
    });
}

fn refused(required: Required, reason: Reason) -> Routing {
    let route = Route::Replica { node: None };
    let decision = Decision { route, reason, achieved: false, degraded: false, waited: Duration::ZERO };
    Routing { required, decision, permit: None }
}

pin_project! {
    /// A future with a [`RywContext`] of its own, see [`RywContext::scope`].
    pub struct WithContext<F> {
        #[pin]
        future: F,
        scope: Scope,
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.scope.enter(|| this.future.poll(cx))
    }
}

impl<F> fmt::Debug for WithContext<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithContext").field("context", &self.scope.ready()).finish_non_exhaustive()
    }
}
