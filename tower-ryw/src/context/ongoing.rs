//! A session that goes on after its request: what is known of it from message to message.

use ryw_core::{Acknowledged, Lost, Marks, SessionId, SubjectKey, Token};

use super::{
    Inner, Progress, RywContext, Summary,
    ending::{born, seconds},
    scope,
};
use crate::{
    identify::{self, Carried, Identity, Keys},
    lookup::Doubt,
    outcome::Told,
    policy::{Intent, Terms},
    record::Saved,
};

/// What a session must see from here on: what a token would carry, had the client been asked to bring one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    marks: Marks,
    /// What those tokens say that can't be believed.
    hint: Marks,
    /// As of when its *pending* counts, in seconds since 1970.
    since: u32,
    /// The client knows what it has lost.
    acknowledges: Option<Acknowledged>,
}

impl RywContext {
    /// The request as it is before a message: the session, and what is known of it.
    pub(crate) fn ask_again(&self, intent: Intent) -> (Identity, Known) {
        let Inner { config, identity, progress, .. } = &*self.0;
        let terms = Terms { intent, ..identity.terms };
        if intent == Intent::Write || terms.reads_raise_marks {
            // There is going to be something to remember, and it is remembered of one session.
            self.newborn();
        }
        let mut progress = progress.lock();
        let known = self.known(&mut progress.known).clone();
        if let Some(known) = &mut progress.known {
            known.acknowledges = None;
        }
        let keys: Keys = progress.born.iter().map(|(_, key)| *key).chain(identity.keys.iter().copied()).collect();
        let carried = Carried {
            marks: identify::aged_since(config, known.marks.clone(), known.since),
            hint: known.hint.clone(),
            pending_since: known.since,
            ..Carried::default()
        };
        let again = Identity {
            session: identity.session.clone(),
            has_session: identity.has_session || progress.born.is_some(),
            keys,
            carried,
            acknowledges: known.acknowledges,
            arrived: config.observer.is_some().then(tokio::time::Instant::now),
            path: identity.path.clone(),
            ..Identity::nobody(identity.tenant.clone(), terms)
        };
        (again, known)
    }

    /// Whether its session goes on after the response.
    pub(crate) fn is_ongoing(&self) -> bool {
        self.0.progress.lock().known.is_some()
    }

    /// What the handler has said about its writes until now.
    pub(crate) fn told(&self) -> Told {
        self.0.progress.lock().told
    }

    /// The context of the current request, where somebody has asked for it.
    pub(crate) fn made() -> Option<Self> {
        scope::made()
    }

    /// From here on it is kept what the session must see.
    pub(crate) fn goes_on(&self) {
        self.known(&mut self.0.progress.lock().known);
    }

    fn known<'a>(&self, known: &'a mut Option<Box<Known>>) -> &'a mut Known {
        let Inner { config, identity, required, .. } = &*self.0;
        known.get_or_insert_with(|| {
            let since = identity.carried.pending_since;
            let since = if since > 0 { since } else { seconds(config) };
            let hint = if required.doubt == Doubt::Unmet { identity.carried.hint.clone() } else { Marks::none() };
            Box::new(Known { marks: required.marks.clone(), hint, since, acknowledges: None })
        })
    }

    /// This is a message of `outer`'s session.
    pub(crate) fn belongs_to(&self, outer: &Self) {
        self.0.progress.lock().outer = Some(outer.clone());
    }

    /// The session, born now if there is none.
    pub(super) fn newborn(&self) -> Option<(SessionId, SubjectKey)> {
        let Inner { config, identity, progress, .. } = &*self.0;
        if identity.has_session {
            return None;
        }
        let mut progress = progress.lock();
        if progress.born.is_none() {
            progress.born = born(config, &identity.tenant);
        }
        progress.born.clone()
    }

    /// A message has ended that began when this was `known`.
    pub(crate) fn goes_on_from(&self, known: &Known, summary: &Summary<'_>, saved: Option<&Marks>) {
        let mut progress = self.0.progress.lock();
        let now = self.known(&mut progress.known);
        if summary.has_heeded && now.hint == known.hint {
            now.hint = Marks::none();
        }
        let is_old = summary.marks.is_pending() && !summary.fresh;
        let since = if is_old { known.since } else { seconds(&self.0.config) };
        if now.marks == known.marks {
            // What has been found out about the unknown stays found out.
            (now.marks, now.since) = (Marks::clone(&summary.marks), since);
        } else {
            now.join(&summary.marks, since);
        }
        let is_open = !progress.closed;
        drop(progress);
        if let Some(saved) = saved.filter(|_| is_open) {
            self.heed(saved);
        }
    }

    /// There is more that the session must see: for a message, of the session that it belongs to.
    pub(super) fn goes_on_after(&self, marks: &Marks) {
        let outer = self.joined_into(&mut self.0.progress.lock(), marks);
        if let Some(outer) = outer {
            outer.goes_on_after(marks);
        }
    }

    /// The same for this request alone; the one that it belongs to is next.
    pub(super) fn joined_into(&self, progress: &mut Progress, marks: &Marks) -> Option<Self> {
        if let Some(known) = &mut progress.known {
            known.join(marks, seconds(&self.0.config));
        }
        progress.outer.clone()
    }

    /// What was written after the response had begun is recorded.
    pub(crate) fn wrote_late(&self, saved: &Saved) {
        let mut progress = self.0.progress.lock();
        let known = self.known(&mut progress.known);
        if saved.settles {
            known.marks = std::mem::take(&mut known.marks).without_unknown();
        }
        known.join(&saved.marks, seconds(&self.0.config));
    }

    /// A client that goes on has brought this token.
    pub(crate) fn was_told(&self, token: &str) {
        let Inner { config, identity, progress, .. } = &*self.0;
        let opened = Token::open(&config.keys, &identity.tenant, token);
        let mut progress = progress.lock();
        let known = self.known(&mut progress.known);
        match opened {
            Ok(token) => known.join(&identify::aged_since(config, token.marks, token.issued_at), token.issued_at),
            Err(error) => {
                config.token_refused(error);
                known.hint.join(&identify::peeked(config, token));
            }
        }
    }

    pub(crate) fn acknowledge(&self) {
        self.known(&mut self.0.progress.lock().known).acknowledges = Some(Acknowledged::Told);
    }

    /// What the session has lost, as far as it is known by now.
    pub(crate) fn lost_by_now(&self) -> Option<Lost> {
        let marks = self.known(&mut self.0.progress.lock().known).marks.clone();
        self.lost_of(&marks)
    }

    /// All of it, signed. `None` without a session.
    pub(crate) fn token_by_now(&self) -> Option<String> {
        let Inner { config, identity, progress, .. } = &*self.0;
        let mut progress = progress.lock();
        let session = match identity.has_session {
            true => *identity.keys.first()?,
            false => progress.born.as_ref()?.1,
        };
        let Known { marks, since, .. } = self.known(&mut progress.known).clone();
        let issued_at = if marks.is_pending() { since } else { seconds(config) };
        Some(Token { session, issued_at, marks }.seal(&config.keys, &identity.tenant))
    }
}

impl Known {
    fn join(&mut self, marks: &Marks, since: u32) {
        if marks.is_pending() {
            self.since = if self.marks.is_pending() { self.since.max(since) } else { since };
        }
        self.marks.join(marks);
    }
}
