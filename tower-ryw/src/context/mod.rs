//! What a handler can know and say about its request: reachable as a request extension, as a task-local, and, with
//! the feature `axum`, as an extractor.

#[cfg(feature = "axum")]
mod extract;
mod ending;
mod hop;
mod link;
mod ongoing;
mod probe;
mod rotate;
mod scope;
mod serving;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_core::{ClusterId, Epoch, Level, Lost, Marks, Position, Reason, SessionId, Subject, SubjectKey, Tenant};
use tokio::task::JoinHandle;

use crate::{
    config::{Config, Permit},
    decide::{Decision, Route},
    identify::{Identity, Keys},
    lookup::{Doubt, Required},
    outcome::Told,
    policy::Intent,
    record::Run,
    route::Routing,
};

pub(crate) use ending::{Ended, Summary};
#[cfg(feature = "axum")]
pub use extract::MissingLayer;
pub(crate) use ongoing::Known;
pub(crate) use scope::Scope;
pub use scope::WithContext;
use serving::Trouble;

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
    /// It is named anew: what a browser keeps of the names before is over.
    is_renamed: bool,
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
    /// What the session must see once it goes on after the response; `None` where nobody has asked for that. Few do, and a
    /// context of a kilobyte costs an allocator many times what a smaller one does.
    known: Option<Box<Known>>,
    /// The request whose session goes on, where this is one of its messages.
    outer: Option<RywContext>,
    /// Places in the primary's budget.
    permits: Vec<Permit>,
    /// The response has left, or never will.
    closed: bool,
}

impl Progress {
    fn close(&mut self) {
        self.closed = true;
        self.permits.clear();
    }

    /// Everybody whom the request's writes concern.
    fn keys(&self, identity: &Identity) -> Keys {
        let mut keys = Keys::from_slice(&identity.keys);
        keys.extend(self.born.iter().map(|(_, key)| *key));
        keys.extend_from_slice(&self.others);
        keys
    }
}

/// Waits until something that a request has started can't commit any more.
type Unfinished = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

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
    /// request is in it once the handler has told its position; a session is born if it has none. `None` when a request without
    /// a session has not written.
    ///
    /// Where the request turns out not to write after all, that session is the token's alone: the client is not told of it, and
    /// no store has heard of it.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        let (marks, fresh) = self.so_far();
        let told = self.0.progress.lock().told;
        if told == Told::Written || told == Told::Nothing && self.0.identity.terms.intent == Intent::Write {
            self.keys_to_mark();
        }
        self.seal(marks, fresh)
    }

    /// What the session must see so far, and whether a write is on its way since now.
    fn so_far(&self) -> (Marks, bool) {
        let mut marks = self.0.required.marks.clone();
        let progress = self.0.progress.lock();
        marks.join(&progress.written);
        marks.join(&progress.hop.marks);
        // A write has not looked up what its session wrote before; a position of its own would contain it. And what a token says
        // that can't be believed may be true.
        let writes = self.0.identity.terms.intent == Intent::Write || progress.told == Told::Written;
        let is_unmet = self.0.required.doubt == Doubt::Unmet;
        if (writes || is_unmet) && progress.written.is_none() {
            marks.join(&Marks::unknown());
        }
        (marks, progress.hop.marks.is_pending())
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

    fn new(config: Arc<Config>, identity: Identity, required: Required, routing: Routing) -> Self {
        let Routing { decision, permit, since } = routing;
        let progress = Mutex::new(Progress { permits: permit.into_iter().collect(), ..Progress::default() });
        Self(Arc::new(Inner { config, identity, required, decision, since, progress }))
    }

    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub(crate) fn required(&self) -> &Required {
        &self.0.required
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
