//! What becomes of a request when it ends, and what is told of it.

use std::{borrow::Cow, time::Duration};

use ryw_core::{Lost, Mark, Marks, Reason, SessionId, SubjectKey, Tenant, Token};
use smallvec::SmallVec;
use tracing::Span;

use super::{Inner, Progress, RywContext};
use crate::{
    annotate::Note,
    config::Config,
    decide::Route,
    identify::{CookieName, Identity, Keys, Slot},
    lookup::Doubt,
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
pub(crate) struct Summary<'a> {
    pub(crate) route: Route,
    pub(crate) reason: Reason,
    /// What the session must see from here on.
    pub(crate) marks: Cow<'a, Marks>,
    /// A write is on its way since now.
    pub(crate) fresh: bool,
    /// The client does not know all of the marks.
    pub(crate) news: bool,
    pub(crate) achieved: bool,
    pub(crate) lost: Option<Lost>,
    /// The part of that which has not been counted by others.
    pub(crate) own_loss: Option<Lost>,
    /// The session that was born with it.
    pub(crate) born: Option<(SessionId, SubjectKey)>,
    pub(crate) relayed: Vec<http::HeaderValue>,
    /// What tokens say that can't be believed is among the marks.
    pub(crate) has_heeded: bool,
    is_renamed: bool,
}

impl RywContext {
    /// Ends the request: what the handler has said until now is recorded with it, and what its tasks say from here on
    /// is recorded when they say it. Nothing falls in between.
    pub(crate) fn end(&self) -> Ended {
        let mut progress = self.0.progress.lock();
        progress.close();
        self.ended(&progress)
    }

    /// The same. `None` for what has only read, and whose reads are not remembered: there is nothing to record of it.
    pub(crate) fn end_of_more_than_a_read(&self) -> Option<Ended> {
        let terms = &self.0.identity.terms;
        let mut progress = self.0.progress.lock();
        progress.close();
        let only_reads = terms.intent == Intent::Read && progress.told != Told::Written && !terms.reads_raise_marks;
        (!only_reads).then(|| self.ended(&progress))
    }

    fn ended(&self, progress: &Progress) -> Ended {
        let by = match progress.served.as_slice() {
            [] => {
                let first = self.0.decision.route.clone();
                // Both may have been read from: before the call of another service and after it.
                let then =
                    Some(self.planned(progress).0).filter(|then| !progress.hop.marks.is_none() && *then != first);
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
        let is_settled = required.doubt != Doubt::Unmet && (config.topology.is_none() || !required.marks.is_unknown());
        if !dead || !is_settled {
            return None;
        }
        let marks = match &config.topology {
            Some(_) => required.marks.clone(),
            None => Marks::pending(),
        };
        self.keys_to_mark();
        Some(Saved { marks, event: Recorded::Read, settles: true })
    }

    /// Whom the request's writes concern. A session is born here, with the first thing there is to remember of it.
    pub(crate) fn keys_to_mark(&self) -> Keys {
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
        self.hold_unfinished(&keys);
        self.goes_on_after(&saved.marks);
        saved
    }

    /// Nobody knows what became of the request's writes, and some of them may still commit.
    pub(crate) fn hold_unfinished(&self, keys: &[SubjectKey]) {
        let unfinished = std::mem::take(&mut self.0.progress.lock().unfinished);
        if unfinished.is_empty() {
            return;
        }
        let ended = unfinished.into_iter().map(|ended| ended()).collect();
        record::hold_until(&self.0.config, Keys::from_slice(keys), ended);
    }

    /// Counts what was recorded of the request.
    pub(crate) fn recorded(&self, event: Recorded) {
        let source = if event == Recorded::Read { Source::Read } else { self.0.identity.terms.source };
        self.0.config.recorded(event, source);
    }

    /// Counts where the request has gone.
    pub(crate) fn report(&self, span: &Span, summary: &Summary<'_>) {
        let Summary { route, reason, achieved, born, .. } = summary;
        let node = match route {
            Route::Replica { node } => node.as_ref().map(NodeName::as_str),
            Route::Primary => None,
        };
        let Identity { terms, session, keys, has_session, arrived, path, .. } = &self.0.identity;
        // A session that begins with this request is its own.
        let key = keys.first().filter(|_| *has_session).or(born.as_ref().map(|(_, key)| key));
        let routed = Routed {
            primary: *route == Route::Primary,
            node,
            reason: *reason,
            level: terms.level,
            read: terms.intent == Intent::Read,
            took: arrived.map_or(Duration::ZERO, |arrived| arrived.elapsed()),
            waited: self.waited(),
            achieved: *achieved,
            proven: self.is_proven(),
            session: key.copied(),
            session_name: session.as_ref().or(born.as_ref().map(|(name, _)| name)),
        };
        self.0.config.routed(&routed, path.as_deref());
        let epoch = || self.0.config.topology.as_ref()?.view().epoch();
        trace::routed(span, &routed, &self.0.required.marks, epoch);
    }

    /// Whether what the request had to see rests on nothing that nobody has proven. Where such a token was left aside, what
    /// is known besides was owed all the same: a decision for another reason has failed that.
    fn is_proven(&self) -> bool {
        match self.0.required.doubt {
            Doubt::None => true,
            Doubt::Heeded => false,
            Doubt::Unmet => self.0.decision.reason != Reason::UnknownMarks,
        }
    }

    /// What did not survive a failover of what the session had to see, or has seen since.
    fn lost_with(&self, saved: Option<&Saved>) -> Option<Lost> {
        self.lost().max(saved.and_then(|saved| self.lost_of(&saved.marks)))
    }

    /// Whether the request was served at its level, and what the session has to see from here on is kept.
    fn achieves(&self, progress: &Progress, saved: Option<&Saved>, lost: Option<Lost>) -> bool {
        let Inner { identity, decision, .. } = &*self.0;
        let is_kept = progress.hop.unstored == 0 && !progress.hop.unseen;
        let is_recorded =
            !saved.is_some_and(|saved| matches!(saved.event, Recorded::WithoutPosition | Recorded::NotStored));
        let has_lost = identity.terms.level.follows_marks() && (lost.is_some() || self.may_hide_a_loss());
        decision.achieved && is_kept && is_recorded && !has_lost
    }

    /// What the store would have told may be what a failover took. Nothing else says that: a sample of the primary stands for
    /// what survived alone, and a write on its way for itself.
    fn may_hide_a_loss(&self) -> bool {
        let Inner { config, required, .. } = &*self.0;
        let topology = config.topology.as_ref().filter(|_| required.store_failed);
        topology.is_some_and(|topology| topology.view().may_have_lost(config.token_max_age))
    }

    pub(super) fn served(&self) -> (Route, Reason) {
        self.served_until(&self.0.progress.lock())
    }

    fn served_until(&self, progress: &Progress) -> (Route, Reason) {
        let primary = progress.served.iter().find(|(route, ..)| *route == Route::Primary);
        // Whoever came last has finished what others had to give up.
        let told = primary.or(progress.served.last()).map(|(route, reason, _)| (route.clone(), *reason));
        told.unwrap_or_else(|| self.planned(progress))
    }

    /// What there is to tell of the request once its effect is recorded.
    pub(crate) fn summary(&self, saved: Option<&Saved>) -> Summary<'_> {
        self.summary_of(&self.0.progress.lock(), saved)
    }

    /// The same, where it goes with the response: its session goes on from there.
    pub(crate) fn last_summary(&self, saved: Option<&Saved>) -> Summary<'_> {
        let mut progress = self.0.progress.lock();
        let summary = self.summary_of(&progress, saved);
        let outer = self.joined_into(&mut progress, &summary.marks);
        drop(progress);
        if let Some(outer) = outer {
            outer.goes_on_after(&summary.marks);
        }
        summary
    }

    fn summary_of(&self, progress: &Progress, saved: Option<&Saved>) -> Summary<'_> {
        let Inner { config, identity, required, .. } = &*self.0;
        let hop = &progress.hop;
        // A client that has only read without what its token says keeps that token: what it would be given lacks the same.
        let keeps_its_own = required.doubt == Doubt::Unmet
            && saved.is_none_or(|saved| saved.event == Recorded::Read)
            && !progress.is_renamed
            && hop.marks.is_none();
        // A token that was asked for begins a session. Where nothing has come of that, the client is told of none, and goes on
        // as nobody.
        let goes_on = saved.is_some() && !keeps_its_own
            || progress.is_renamed
            || progress.known.is_some()
            || progress.outer.is_some()
            || !hop.marks.is_none();
        let born = progress.born.clone().filter(|_| goes_on);
        let own_loss = self.lost_with(saved);
        // What others have lost they have counted themselves.
        let lost = own_loss.max(hop.lost);
        let achieved = self.achieves(progress, saved, lost);
        let (route, reason) = self.served_until(progress);
        let mut marks = Cow::Borrowed(&required.marks);
        let mut fresh = hop.marks.is_pending();
        let mut news = !hop.marks.is_none() || required.renewed || born.is_some();
        // What a link says goes on as the session's; what can't be believed is replaced once it is known what it stood for.
        let cookies = &identity.cookies;
        let is_settled = !required.marks.is_unknown() && required.doubt != Doubt::Unmet;
        let has_heeded = required.doubt == Doubt::Heeded && is_settled;
        let replaced = has_heeded || (cookies.dead || cookies.unsettled) && is_settled || cookies.crowded;
        news |= identity.has_session && identity.terms.level.follows_marks() && (identity.carried.by_link || replaced);
        if let Some(saved) = saved {
            if saved.settles && marks.is_unknown() {
                marks = Cow::Owned(marks.into_owned().without_unknown());
            }
            marks.to_mut().join(&saved.marks);
            fresh |= saved.marks.is_pending();
            // What the store knew already, or was sampled for it, this client may not have: another instance may not either.
            news |= !identity.carried.marks.covers(&saved.marks);
            news |= *marks != required.marks;
        }
        if !hop.marks.is_none() {
            marks.to_mut().join(&hop.marks);
        }
        if cookies.crowded {
            // Their cookies are taken away, also where another answer has just written them anew.
            marks.to_mut().join(&if config.topology.is_some() { Marks::unknown() } else { Marks::pending() });
        }
        if own_loss.is_some()
            && let Some(began) = config.topology.as_ref().and_then(|topology| topology.view().untold(&marks))
        {
            news = true;
            marks.to_mut().add(Mark::At(began));
        }
        news &= !keeps_its_own;
        let (relayed, is_renamed) = (hop.relayed.clone(), progress.is_renamed);
        Summary { route, reason, marks, fresh, news, achieved, lost, own_loss, born, relayed, has_heeded, is_renamed }
    }

    /// Counts what the client is told of a loss.
    pub(crate) fn tell_loss(&self, summary: &Summary<'_>) {
        if let Some(lost) = summary.own_loss {
            self.0.config.lost_told(lost);
        }
    }

    /// Writes onto the response what the client is told; of its level nothing, where there is nothing to say.
    pub(crate) fn annotate(&self, summary: Summary<'_>, enforced: Option<bool>, headers: &mut http::HeaderMap) {
        let Inner { config, identity, decision, required, .. } = &*self.0;
        self.tell_loss(&summary);
        let slots = if summary.news { self.slots(&summary) } else { Slots::default() };
        let Summary { route, reason, marks, fresh, news, lost, born, relayed, .. } = summary;
        let pinned = identity.terms.level.follows_marks() && !required.marks.is_none() && route == Route::Primary;
        let session = born.as_ref().map(|(session, _)| session).or(identity.session.as_ref());
        let key = born.as_ref().map(|(_, key)| *key).or_else(|| self.own_key());
        let note = Note {
            route: &route,
            reason,
            level: identity.terms.level,
            waited: decision.waited,
            enforced,
            session,
            token: key.filter(|_| news).map(|key| self.sealed(key, marks.into_owned(), fresh)),
            relayed: &relayed,
            set_cookie: identity.cookies.any || born.is_some(),
            cookie: news.then(|| CookieName::of(config, &identity.tenant)).flatten(),
            slot: born.as_ref().map(|(_, key)| Slot::of(key)),
            removed: &slots.removed,
            rewritten: &slots.rewritten,
            by_link: identity.carried.by_link,
            pinned,
            anonymous: identity.keys.is_empty() && identity.carried.is_none() && born.is_none(),
            lost,
        };
        crate::annotate::annotate(config, note, headers);
    }

    pub(super) fn lost_of(&self, marks: &Marks) -> Option<Lost> {
        match &self.0.config.topology {
            Some(topology) if !marks.positions().is_empty() => topology.view().lost(marks),
            _ => marks.lost(),
        }
    }

    /// `fresh`: a write is on its way since now. Otherwise a *pending* that was carried here keeps its time.
    pub(super) fn seal(&self, marks: Marks, fresh: bool) -> Option<String> {
        let born = self.0.progress.lock().born.as_ref().map(|(_, key)| *key);
        born.or_else(|| self.own_key()).map(|session| self.sealed(session, marks, fresh))
    }

    fn own_key(&self) -> Option<SubjectKey> {
        let Identity { keys, has_session, .. } = &self.0.identity;
        keys.first().copied().filter(|_| *has_session)
    }

    fn sealed(&self, session: SubjectKey, marks: Marks, fresh: bool) -> String {
        let Inner { config, identity, .. } = &*self.0;
        let issued_at = self.issued_at(&marks, fresh);
        Token { session, issued_at, marks }.seal(&config.keys, &identity.tenant)
    }

    /// What becomes of the cookies of other sessions that this browser goes on as, with an answer that replaces its own.
    ///
    /// They say what their session began with. Where that is over (a loss that was acknowledged, something unknown that was
    /// settled), each request would bring it back, so they say the same as the session's own from then on. After a login they
    /// are nobody's any more.
    fn slots(&self, Summary { marks, fresh, is_renamed, .. }: &Summary<'_>) -> Slots {
        let Inner { config, identity, required, .. } = &*self.0;
        let cookies = &identity.cookies;
        let mut slots = Slots { removed: cookies.removed.clone(), rewritten: Vec::new() };
        let own = || CookieName::of(config, &identity.tenant);
        if *is_renamed {
            slots.removed.extend(cookies.kept.iter().filter_map(|(slot, _)| Some(own()?.with(*slot))));
        } else if required.renewed || cookies.unsettled {
            let own = own();
            let is_removed = |slot: Slot| own.is_some_and(|own| slots.removed.contains(&own.with(slot)));
            let kept: SmallVec<[_; 2]> = cookies.kept.iter().filter(|(slot, _)| !is_removed(*slot)).collect();
            let sealed = |session: &SubjectKey| self.sealed(*session, Marks::clone(marks), *fresh);
            slots.rewritten.extend(kept.into_iter().map(|(slot, session)| (*slot, sealed(session))));
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
    removed: SmallVec<[CookieName; 2]>,
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
