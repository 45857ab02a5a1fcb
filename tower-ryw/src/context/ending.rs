//! What becomes of a request when it ends, and what is told of it.

use std::time::Duration;

use ryw_core::{Lost, Mark, Marks, Reason, SessionId, SubjectKey, Tenant, Token};
use smallvec::SmallVec;
use tracing::Span;

use super::{Inner, RywContext};
use crate::{
    annotate::Note,
    config::Config,
    decide::Route,
    identify::{Identity, Slot},
    observe::{Recorded, Routed},
    outcome::Told,
    policy::{Intent, Source},
    record::{self, Saved, Served, record_unknown},
    topology::NodeName,
    trace,
};

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
    pub(crate) born: Option<(SessionId, SubjectKey)>,
    pub(crate) relayed: Vec<http::HeaderValue>,
}

impl RywContext {
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
        let dead = identity.cookies.any && !identity.has_session && identity.terms.level.follows_marks();
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
        self.recorded(saved.event);
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

    /// Counts what was recorded of the request.
    pub(crate) fn recorded(&self, event: Recorded) {
        let source = if event == Recorded::Read { Source::Read } else { self.0.identity.terms.source };
        self.0.config.recorded(event, source);
    }

    /// Counts where the request has gone.
    pub(crate) fn report(&self, span: &Span, saved: Option<&Saved>) {
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
            achieved: self.achieves(saved),
            session: keys.first().copied().filter(|_| *has_session),
            session_name: session.as_ref(),
        };
        self.0.config.routed(&routed);
        let epoch = || self.0.config.topology.as_ref()?.view().epoch();
        trace::routed(span, &routed, &self.0.required.marks, epoch);
    }

    /// What did not survive a failover of what the session had to see, or has seen since.
    fn lost_with(&self, saved: Option<&Saved>) -> Option<Lost> {
        self.lost().max(saved.and_then(|saved| self.lost_of(&saved.marks)))
    }

    /// Whether the request was served at its level, and what the session has to see from here on is kept.
    fn achieves(&self, saved: Option<&Saved>) -> bool {
        let Inner { identity, decision, progress, .. } = &*self.0;
        let (is_kept, lost_elsewhere) = {
            let hop = &progress.lock().hop;
            (hop.unstored == 0 && !hop.unseen, hop.lost.is_some())
        };
        let is_recorded =
            !saved.is_some_and(|saved| matches!(saved.event, Recorded::WithoutPosition | Recorded::NotStored));
        let has_lost = || identity.terms.level.follows_marks() && (lost_elsewhere || self.lost_with(saved).is_some());
        decision.achieved && is_kept && is_recorded && !has_lost()
    }

    pub(super) fn served(&self) -> (Route, Reason) {
        let progress = self.0.progress.lock();
        let primary = progress.served.iter().find(|(route, ..)| *route == Route::Primary);
        // Whoever came last has finished what others had to give up.
        let told = primary.or(progress.served.last()).map(|(route, reason, _)| (route.clone(), *reason));
        told.unwrap_or_else(|| self.planned(&progress))
    }

    /// What there is to tell of the request once its effect is recorded.
    pub(crate) fn summary(&self, saved: Option<Saved>) -> Summary {
        let Inner { config, identity, required, progress, .. } = &*self.0;
        let (lost, achieved) = (self.lost_with(saved.as_ref()), self.achieves(saved.as_ref()));
        let (born, hop) = {
            let progress = progress.lock();
            (progress.born.clone(), progress.hop.clone())
        };
        let (route, reason) = self.served();
        let mut marks = required.marks.clone();
        let mut fresh = hop.marks.is_pending();
        let mut news = !hop.marks.is_none() || required.renewed || born.is_some();
        // What a link says goes on as the session's; what can't be believed is replaced once it is known what it stood for.
        let cookies = &identity.cookies;
        let is_settled = !required.marks.is_unknown();
        let replaced = (cookies.dead || cookies.unsettled) && is_settled || cookies.crowded;
        news |= identity.has_session && identity.terms.level.follows_marks() && (identity.carried.by_link || replaced);
        if let Some(saved) = saved {
            if saved.settles {
                marks = marks.without_unknown();
            }
            marks.join(&saved.marks);
            fresh |= saved.marks.is_pending();
            // What the store knew already, or was sampled for it, this client may not have: another instance may not either.
            news |= !identity.carried.marks.covers(&saved.marks);
            news |= marks != required.marks;
        }
        marks.join(&hop.marks);
        if cookies.crowded {
            // Their cookies are taken away, also where another answer has just written them anew.
            marks.join(&if config.topology.is_some() { Marks::unknown() } else { Marks::pending() });
        }
        if let Some(lost) = lost {
            config.lost_told(lost);
            let began = config.topology.as_ref().and_then(|topology| topology.view().untold(&marks));
            news |= began.is_some();
            began.into_iter().for_each(|began| marks.add(Mark::At(began)));
        }
        // What others have lost they have counted themselves.
        let lost = lost.max(hop.lost);
        Summary { route, reason, marks, fresh, news, achieved, lost, born, relayed: hop.relayed }
    }

    /// Writes onto the response what the client is told.
    pub(crate) fn annotate(&self, saved: Option<Saved>, headers: &mut http::HeaderMap) {
        let Inner { config, identity, decision, required, .. } = &*self.0;
        let Summary { route, reason, marks, fresh, news, achieved, lost, born, relayed } = self.summary(saved);
        self.goes_on_after(&marks);
        let pinned = identity.terms.level.follows_marks() && !required.marks.is_none() && route == Route::Primary;
        let session = born.as_ref().map(|(session, _)| session).or(identity.session.as_ref());
        let slots = if news { self.slots(&marks, fresh) } else { Slots::default() };
        let note = Note {
            route: &route,
            reason,
            level: identity.terms.level,
            waited: decision.waited,
            achieved,
            session,
            token: news.then(|| self.seal(marks, fresh)).flatten(),
            relayed: &relayed,
            set_cookie: identity.cookies.any || born.is_some(),
            slot: born.as_ref().map(|(_, key)| Slot::of(key)),
            removed: &slots.removed,
            rewritten: &slots.rewritten,
            by_link: identity.carried.by_link,
            pinned,
            anonymous: identity.keys.is_empty() && identity.carried.marks.is_none() && born.is_none(),
            lost,
        };
        crate::annotate::annotate(config, note, headers);
    }

    pub(super) fn lost_of(&self, marks: &Marks) -> Option<Lost> {
        match &self.0.config.topology {
            Some(topology) => topology.view().lost(marks),
            None => marks.lost(),
        }
    }

    /// `fresh`: a write is on its way since now. Otherwise a *pending* that was carried here keeps its time.
    pub(super) fn seal(&self, marks: Marks, fresh: bool) -> Option<String> {
        let Inner { config, identity, progress, .. } = &*self.0;
        let born = progress.lock().born.as_ref().map(|(_, key)| *key);
        let own = identity.keys.first().copied().filter(|_| identity.has_session);
        let session = born.or(own)?;
        let issued_at = self.issued_at(&marks, fresh);
        Some(Token { session, issued_at, marks }.seal(&config.keys, &identity.tenant))
    }

    /// What becomes of the cookies of other sessions that this browser goes on as, with an answer that replaces its own.
    ///
    /// They say what their session began with. Where that is over (a loss that was acknowledged, something unknown that was
    /// settled), each request would bring it back, so they say the same as the session's own from then on. After a login they
    /// are nobody's any more.
    fn slots(&self, marks: &Marks, fresh: bool) -> Slots {
        let Inner { config, identity, required, progress, .. } = &*self.0;
        let cookies = &identity.cookies;
        let mut slots = Slots { removed: cookies.removed.clone(), rewritten: Vec::new() };
        if progress.lock().is_renamed {
            slots.removed.extend(cookies.kept.iter().map(|(slot, _)| *slot));
        } else if required.renewed || cookies.unsettled {
            let issued_at = self.issued_at(marks, fresh);
            let kept = cookies.kept.iter().filter(|(slot, _)| !slots.removed.contains(slot));
            slots.rewritten.extend(kept.map(|(slot, session)| {
                let token = Token { session: *session, issued_at, marks: marks.clone() };
                (*slot, token.seal(&config.keys, &identity.tenant))
            }));
        }
        slots
    }

    pub(super) fn issued_at(&self, marks: &Marks, fresh: bool) -> u32 {
        let since = self.0.identity.carried.pending_since;
        if marks.is_pending() && !fresh && since > 0 { since } else { seconds(&self.0.config) }
    }
}

/// Cookies beside the session's own, with the answer that sets it.
#[derive(Debug, Default)]
struct Slots {
    removed: SmallVec<[Slot; 2]>,
    rewritten: Vec<(Slot, String)>,
}

/// Seconds since 1970, as tokens have them.
pub(super) fn seconds(config: &Config) -> u32 {
    u32::try_from(config.clock.now().as_secs()).unwrap_or(u32::MAX)
}

/// A new session.
pub(super) fn born(config: &Config, tenant: &Tenant) -> Option<(SessionId, SubjectKey)> {
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
