//! What a handler can know and say about its request: reachable as a request extension, as a task-local, and, with
//! the feature `axum`, as an extractor.

#[cfg(feature = "axum")]
mod extract;
mod hop;
mod ongoing;
mod rotate;
mod scope;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_core::{
    ClusterId, Epoch, Level, Lost, Marks, Position, Reason, Relation, SessionId, Subject, SubjectKey, Tenant, Token,
};
use tokio::task::JoinHandle;
use tracing::Span;

use crate::{
    annotate::Note,
    config::{Config, Permit},
    decide::{Decision, Excluded, Route, out_of_order},
    identify::Identity,
    lookup::Required,
    observe::{Recorded, Routed},
    outcome::Told,
    policy::{Intent, Terms},
    record::{self, Run, Saved, Served, record_unknown},
    route::{Attempt, Routing, attempt},
    topology::NodeName,
    trace,
};

#[cfg(feature = "axum")]
pub use extract::MissingLayer;
pub(crate) use ongoing::Known;
pub(crate) use scope::Scope;
pub use scope::WithContext;

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
    /// The cluster and epoch that was current when the request was routed.
    since: Option<(ClusterId, Epoch)>,
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
    /// The session that was born with this request, or is named anew by it.
    born: Option<(SessionId, SubjectKey)>,
    /// Who has really served it, in the order of their first use; empty where nobody has said.
    served: Vec<(Route, Reason, Option<Run>)>,
    /// What may still commit when the request is cut short.
    unfinished: Vec<Unfinished>,
    /// What went wrong on a replica and would not go wrong elsewhere.
    trouble: Option<Trouble>,
    /// Where the request goes when it is made again.
    redirected: Option<(Route, Reason)>,
    /// What services that it has called have answered.
    hop: hop::Learned,
    /// What the session must see once it goes on after the response; `None` where nobody has asked for that.
    known: Option<Known>,
    /// The request whose session goes on, where this is one of its messages.
    outer: Option<RywContext>,
    /// Places in the primary's budget.
    permits: Vec<Permit>,
    /// The response has left, or never will.
    closed: bool,
}

impl Progress {
    /// Everybody whom the request's writes concern.
    fn keys(&self, identity: &Identity) -> Vec<SubjectKey> {
        let born = self.born.iter().map(|(_, key)| key);
        identity.keys.iter().chain(born).chain(&self.others).copied().collect()
    }
}

/// What is known of a request when it ends.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) told: Told,
    /// Where its writes are, as far as the handler has said.
    pub(crate) written: Marks,
    /// Who has served it.
    pub(crate) served: Served,
}

/// What there is to tell of a request that has ended.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) route: Route,
    pub(crate) reason: Reason,
    /// What the session must see from here on.
    pub(crate) marks: Marks,
    /// A write is on its way since now.
    pub(crate) fresh: bool,
    /// The client does not know all of the marks.
    pub(crate) news: bool,
    pub(crate) achieved: bool,
    pub(crate) lost: Option<Lost>,
    /// The session that was born with it.
    pub(crate) born: Option<SessionId>,
    pub(crate) relayed: Vec<http::HeaderValue>,
}

/// Waits until something that a request has started can't commit any more.
type Unfinished = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Why a request that a replica has failed would succeed elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// It writes, although it is classified as a read.
    Writes,
    /// This replica could not finish the read.
    Node(NodeName),
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
        scope::current()
    }

    /// Where the request is to be served. A request that has written, or has been served by the primary, goes on there: it
    /// must see what it has done itself.
    #[must_use]
    pub fn route(&self) -> Route {
        self.directed().0
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.directed().1
    }

    fn directed(&self) -> (Route, Reason) {
        let progress = self.0.progress.lock();
        let by_primary = progress.served.iter().find(|(route, ..)| *route == Route::Primary);
        match by_primary {
            Some((route, reason, _)) => (route.clone(), *reason),
            None if progress.told == Told::Written => match self.planned(&progress) {
                (Route::Primary, reason) => (Route::Primary, reason),
                _ => (Route::Primary, Reason::Write),
            },
            None => self.planned(&progress),
        }
    }

    fn planned(&self, progress: &Progress) -> (Route, Reason) {
        let Decision { route, reason, .. } = &self.0.decision;
        progress.redirected.clone().unwrap_or_else(|| (route.clone(), *reason))
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

    /// What this session has written or seen and what did not survive a failover. The response tells the client, with
    /// `Ryw-Lost`, until it acknowledges.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.lost_of(&self.0.required.marks)
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
        marks.join(&progress.hop.marks);
        // A write has not looked up what its session wrote before; a position of its own would contain it.
        let writes = self.0.identity.terms.intent == Intent::Write || progress.told == Told::Written;
        if writes && progress.written.is_none() {
            marks.join(&Marks::unknown());
        }
        let fresh = progress.hop.marks.is_pending();
        drop(progress);
        self.seal(marks, fresh)
    }

    /// Tells who has really served the request, or a part of it. For data layers: the response then says so, and what
    /// every one of them has shown counts for the session's later reads. The primary goes before replicas.
    ///
    /// `run`: which run of the node's server it was, where that is known. The position of a write is then that run's
    /// and no other's.
    pub fn served_by(&self, route: Route, reason: Reason, run: Option<Run>) {
        let served = &mut self.0.progress.lock().served;
        if served.iter().all(|(known, _, other)| (known, other) != (&route, &run)) {
            served.push((route, reason, run));
        }
    }

    /// Whether a node that has applied everything up to `position` may serve this read. For data layers that have
    /// asked the very connection that they are going to use.
    #[must_use]
    pub fn admits(&self, position: Position) -> bool {
        let Inner { config, identity, required, decision, .. } = &*self.0;
        let Some(topology) = &config.topology else { return true };
        let view = topology.view();
        let Terms { level, bound, ladder, .. } = identity.terms;
        let in_time = |bound| topology.fresh_as_of(position).is_some_and(|since| since.elapsed() <= bound);
        let Some(lineage) = view.lineage.as_ref().filter(|lineage| lineage.continues(position)) else { return false };
        // Less than what the level demands was allowed, within a bound, and the response says so.
        if !decision.achieved {
            return ladder.stale.is_some_and(in_time);
        }
        let reached = [&required.marks, &self.0.progress.lock().hop.marks]
            .iter()
            .all(|marks| marks.relation_to(lineage, position) == Relation::Reached);
        (!level.follows_marks() || reached) && bound.is_none_or(in_time)
    }

    /// Why a write of this request must not be made in the epoch of `position`, which the primary is in: its history is
    /// not known to contain what the write is to follow (SESSION and above). For data layers, once they know which server
    /// is going to run it.
    #[must_use]
    pub fn refuses_write(&self, position: Position) -> Option<Reason> {
        let Inner { config, identity, required, .. } = &*self.0;
        let view = config.topology.as_ref()?.view();
        let is_current = view.lineage.as_ref().is_some_and(|lineage| lineage.current() == position.epoch());
        match out_of_order(&identity.terms, &required.marks, &view) {
            None if identity.terms.orders_writes() && !is_current => Some(Reason::Behind),
            refused => refused,
        }
    }

    /// Whether what the request does from here on may be a write.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.0.identity.terms.intent == Intent::Write || self.0.progress.lock().told == Told::Written
    }

    /// Where else this read may be served, at once, when these nodes can't. `None` where nobody may: the primary is not
    /// a way out for what it does not show, or must not be asked for. For data layers.
    #[must_use]
    pub fn without(&self, excluded: &[NodeName]) -> Option<(Route, Reason)> {
        self.again(Excluded::These(excluded))
    }

    /// Why the primary may serve this read when no replica can. `None` where it must not be asked. For data layers.
    pub fn without_replicas(&self) -> Option<Reason> {
        self.again(Excluded::All).filter(|(route, _)| *route == Route::Primary).map(|(_, reason)| reason)
    }

    fn again(&self, excluded: Excluded<'_>) -> Option<(Route, Reason)> {
        let Inner { config, identity, required, decision, .. } = &*self.0;
        match attempt(config, &identity.terms, required, decision.waited, false, excluded) {
            Attempt::Routed(Routing { decision, permit, .. }) => {
                self.0.progress.lock().permits.extend(permit);
                Some((decision.route, decision.reason))
            }
            _ => None,
        }
    }

    /// Whether the request is over: answered, or cut short. For data layers: what it leaves behind then may be in the middle
    /// of something.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.progress.lock().closed
    }

    /// Something that the request has started may commit after it was cut short: `ended` completes when it can't any
    /// more. For data layers. It is called only when nobody knows what became of the request's writes; until then, and
    /// for at least the [window](crate::RywLayerBuilder::window), its session is served by the primary.
    pub fn unfinished_until<F>(&self, ended: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.progress.lock().unfinished.push(Box::new(move || Box::pin(ended())));
    }

    /// The request turned out to write although it is classified as a read, and the replica has refused that (in
    /// PostgreSQL with SQLSTATE 25006). Where a [`ReplayLayer`](crate::ReplayLayer) stands between, the request is made
    /// again on the primary, and marked.
    pub fn found_write(&self) {
        self.0.progress.lock().trouble = Some(Trouble::Writes);
    }

    /// This replica could not finish the read: a recovery conflict, a lost connection. Where a
    /// [`ReplayLayer`](crate::ReplayLayer) stands between, the request is made again on another node.
    pub fn found_failure(&self, node: &NodeName) {
        let trouble = &mut self.0.progress.lock().trouble;
        if *trouble != Some(Trouble::Writes) {
            *trouble = Some(Trouble::Node(node.clone()));
        }
    }

    /// Whether something went wrong that would not go wrong elsewhere; if so, the request has another route now.
    pub(crate) fn redirect(&self) -> bool {
        let (trouble, by_primary) = {
            let mut progress = self.0.progress.lock();
            let used = progress.served.iter().any(|(route, ..)| *route == Route::Primary);
            (progress.trouble.take(), used || self.planned(&progress).0 == Route::Primary)
        };
        let Some(trouble) = trouble else { return false };
        // What was done on the primary would be done twice.
        if by_primary {
            return false;
        }
        let elsewhere = match trouble {
            Trouble::Writes => Some((Route::Primary, Reason::Replayed)),
            Trouble::Node(node) => self.without(&[node]),
        };
        let Some(elsewhere) = elsewhere else { return false };
        let mut progress = self.0.progress.lock();
        if elsewhere.1 == Reason::Replayed {
            progress.told = Told::Written;
        }
        progress.redirected = Some(elsewhere);
        progress.served.clear();
        true
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
        WithContext::new(future, self.clone())
    }

    fn new(config: Arc<Config>, identity: Identity, routing: Routing) -> Self {
        let Routing { required, decision, permit } = routing;
        let view = config.topology.as_ref().map(|topology| topology.view());
        let lineage = view.as_ref().and_then(|view| view.lineage.as_ref());
        let since = lineage.map(|lineage| (lineage.cluster(), lineage.current()));
        drop(view);
        let progress = Mutex::new(Progress { permits: permit.into_iter().collect(), ..Progress::default() });
        Self(Arc::new(Inner { config, identity, required, decision, since, progress }))
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
        progress.permits.clear();
        let by = match progress.served.as_slice() {
            [] => {
                let first = self.0.decision.route.clone();
                // Both may have been read from: before the call of another service and after it.
                let then =
                    Some(self.planned(&progress).0).filter(|then| !progress.hop.marks.is_none() && *then != first);
                std::iter::once(first).chain(then).map(|route| (route, None)).collect()
            }
            served => served.iter().map(|(route, _, run)| (route.clone(), run.clone())).collect(),
        };
        let served = Served { since: self.0.since, by };
        Ended { told: progress.told, written: progress.written.clone(), served }
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
            progress.born = match &progress.outer {
                Some(outer) => outer.newborn(),
                None => born(config, &identity.tenant),
            };
        }
        progress.keys(identity)
    }

    /// Records that nobody knows what became of the request's writes.
    pub(crate) fn record_unknown(&self) -> Saved {
        let Inner { config, identity, progress, .. } = &*self.0;
        let keys = progress.lock().keys(identity);
        let saved = record_unknown(config, &keys);
        config.recorded(saved.event);
        self.hold_unfinished(keys);
        self.goes_on_after(&saved.marks);
        saved
    }

    /// Nobody knows what became of the request's writes, and some of them may still commit.
    pub(crate) fn hold_unfinished(&self, keys: Vec<SubjectKey>) {
        let unfinished = std::mem::take(&mut self.0.progress.lock().unfinished);
        let ended = unfinished.into_iter().map(|ended| ended()).collect();
        record::hold_until(&self.0.config, keys, ended);
    }

    /// Counts where the request has gone.
    pub(crate) fn report(&self, span: &Span) {
        let (route, reason) = self.served();
        let node = match &route {
            Route::Replica { node } => node.as_ref().map(NodeName::as_str),
            Route::Primary => None,
        };
        let Identity { terms, session, keys, has_session, arrived, .. } = &self.0.identity;
        let routed = Routed {
            primary: route == Route::Primary,
            node,
            reason,
            level: terms.level,
            read: terms.intent == Intent::Read,
            took: arrived.map_or(Duration::ZERO, |arrived| arrived.elapsed()),
            waited: self.waited(),
            achieved: self.0.decision.achieved,
            session: keys.first().copied().filter(|_| *has_session),
            session_name: session.as_ref(),
        };
        self.0.config.routed(&routed);
        let epoch = || self.0.config.topology.as_ref()?.view().epoch();
        trace::routed(span, &routed, &self.0.required.marks, epoch);
    }

    fn served(&self) -> (Route, Reason) {
        let progress = self.0.progress.lock();
        let primary = progress.served.iter().find(|(route, ..)| *route == Route::Primary);
        // Whoever came last has finished what others had to give up.
        let told = primary.or(progress.served.last()).map(|(route, reason, _)| (route.clone(), *reason));
        told.unwrap_or_else(|| self.planned(&progress))
    }

    /// What there is to tell of the request once its effect is recorded.
    pub(crate) fn summary(&self, saved: Option<Saved>) -> Summary {
        let Inner { config, identity, required, decision, progress, .. } = &*self.0;
        let lost = match &saved {
            Some(saved) => self.lost_of(&required.marks).max(self.lost_of(&saved.marks)),
            None => self.lost(),
        };
        let (born, hop) = {
            let progress = progress.lock();
            (progress.born.clone().map(|(session, _)| session), progress.hop.clone())
        };
        let (route, reason) = self.served();
        let recorded = saved.as_ref().map(|saved| saved.event);
        let degraded =
            hop.unstored > 0 || hop.unseen || matches!(recorded, Some(Recorded::WithoutPosition | Recorded::NotStored));
        let mut marks = required.marks.clone();
        let mut fresh = hop.marks.is_pending();
        let mut news = !hop.marks.is_none() || required.renewed || born.is_some();
        if let Some(saved) = saved {
            if saved.settles {
                marks = marks.without_unknown();
            }
            marks.join(&saved.marks);
            fresh |= saved.marks.is_pending();
            // What the store knew of a write's subjects already, this client may not have.
            news |= saved.event != Recorded::Read && !identity.carried.marks.covers(&saved.marks);
            news |= marks != required.marks;
        }
        marks.join(&hop.marks);
        if let Some(lost) = lost {
            config.lost_told(lost);
        }
        let achieved = decision.achieved && !degraded && !(identity.terms.level.follows_marks() && lost.is_some());
        Summary { route, reason, marks, fresh, news, achieved, lost, born, relayed: hop.relayed }
    }

    /// Writes onto the response what the client is told.
    pub(crate) fn annotate(&self, saved: Option<Saved>, headers: &mut http::HeaderMap) {
        let Inner { config, identity, decision, .. } = &*self.0;
        let Summary { route, reason, marks, fresh, news, achieved, lost, born, relayed } = self.summary(saved);
        self.goes_on_after(&marks);
        let note = Note {
            route: &route,
            reason,
            level: identity.terms.level,
            waited: decision.waited,
            achieved,
            session: born.as_ref().or(identity.session.as_ref()),
            token: news.then(|| self.seal(marks, fresh)).flatten(),
            relayed: &relayed,
            set_cookie: identity.by_cookie || born.is_some(),
            lost,
        };
        crate::annotate::annotate(config, note, headers);
    }

    fn lost_of(&self, marks: &Marks) -> Option<Lost> {
        match &self.0.config.topology {
            Some(topology) => topology.view().lost(marks),
            None => marks.lost(),
        }
    }

    /// `fresh`: a write is on its way since now. Otherwise a *pending* that was carried here keeps its time.
    fn seal(&self, marks: Marks, fresh: bool) -> Option<String> {
        let Inner { config, identity, progress, .. } = &*self.0;
        let born = progress.lock().born.as_ref().map(|(_, key)| *key);
        let own = identity.keys.first().copied().filter(|_| identity.has_session);
        let session = born.or(own)?;
        let now = seconds(config);
        let since = identity.carried.pending_since;
        let issued_at = if marks.is_pending() && !fresh && since > 0 { since } else { now };
        Some(Token { session, issued_at, marks }.seal(&config.keys, &identity.tenant))
    }
}

/// Seconds since 1970, as tokens have them.
fn seconds(config: &Config) -> u32 {
    u32::try_from(config.clock.now().as_secs()).unwrap_or(u32::MAX)
}

/// A new session.
fn born(config: &Config, tenant: &Tenant) -> Option<(SessionId, SubjectKey)> {
    match SessionId::random() {
        Ok(session) => {
            let key = config.keys.newest().session(tenant, &session);
            Some((session, key))
        }
        Err(error) => {
            tracing::error!(%error, "no session could be started");
            None
        }
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
