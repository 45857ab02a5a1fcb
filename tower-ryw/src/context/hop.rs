//! What a request takes along to other services, and what it brings back.

use std::future::Future;

use http::HeaderValue;
use ryw_core::{
    Acknowledged, Lost, Mark, Marks, StoreError, SubjectKey, Update,
    seeded::{Bug, is_on},
    wire,
};

use super::{Inner, RywContext};
use crate::{
    decide::{Excluded, Route},
    identify,
};

/// What services that a request has called have answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    /// What the session must see because of it.
    pub(super) marks: Marks,
    /// Tokens that only other services can check, to be handed on to the client as they are.
    pub(super) relayed: Vec<HeaderValue>,
    /// How much of it the store has not taken, or not yet: the response's token alone carries that.
    pub(super) unstored: usize,
    /// Nobody was left who could show it to the rest of the request.
    pub(super) unseen: bool,
    /// What they have lost of the session's writes.
    pub(super) lost: Option<Lost>,
}

impl RywContext {
    /// The tokens to send along when the request calls another service: [`token`](Self::token), and those that the request
    /// came with and this service can't check. At most [`MAX_TOKENS`](wire::MAX_TOKENS). The feature `server` of `ryw-client`
    /// does this without code in the handler.
    #[must_use]
    pub fn tokens(&self) -> Vec<HeaderValue> {
        if is_on(Bug::NoForward) {
            return Vec::new();
        }
        let own = self.token().and_then(|token| HeaderValue::try_from(token).ok());
        let relayed = self.0.progress.lock().hop.relayed.clone();
        let foreign = self.0.identity.carried.foreign.iter().cloned().chain(relayed);
        own.into_iter().chain(foreign).take(wire::MAX_TOKENS).collect()
    }

    /// A service that the request has called answered with this token: from here on the request, and its session, must see
    /// what it says. The response tells the client. The future ends once the mark store has it, or has failed to take it in
    /// time; a response that leaves without that, also because the future was dropped, says that the level was not enforced.
    ///
    /// Whatever a replica has shown to the handler before this call is as old as it is.
    pub fn join_token(&self, token: &HeaderValue) -> impl Future<Output = ()> + Send + use<> {
        self.store(if is_on(Bug::ReceiveOwnRelay) { None } else { self.learn(token) })
    }

    /// A service that the request has called may have written, and nobody knows: it went without an answer. From here on the
    /// session is held to be *unknown*, as after such a write of its own. The response's token says so to every service that
    /// it is sent to: those that can't check it take it for *unknown* as well. The future is that of
    /// [`join_token`](Self::join_token).
    pub fn join_unknown(&self) -> impl Future<Output = ()> + Send + use<> {
        let Inner { config, .. } = &*self.0;
        let keys = self.session_keys();
        let unknown = if config.topology.is_some() { Marks::unknown() } else { Marks::none() };
        let mut marks = unknown.clone();
        // It may still be on its way.
        marks.add(Mark::Pending);
        self.heed(&marks);
        self.store(Some((keys, Update { marks: unknown, hold: Some(config.window.now()) })))
    }

    /// A service that the request has called answered with `Ryw-Lost`: the response tells the client, and, at levels that follow
    /// marks, says that the level was not enforced. Of several the one of the newest epoch is told.
    pub fn join_lost(&self, lost: Lost) {
        let mut progress = self.0.progress.lock();
        progress.hop.lost = progress.hop.lost.max(Some(lost));
    }

    /// What the client has said that it knows to be lost, if it was not something of this service: then a called service has told
    /// it, and has to hear it. One that has not told its loss yet must not take this for its own.
    #[must_use]
    pub fn acknowledged_loss(&self) -> Option<Acknowledged> {
        self.0.identity.acknowledges.filter(|_| !self.0.required.acknowledged)
    }

    fn store(&self, filed: Option<(Vec<SubjectKey>, Update)>) -> impl Future<Output = ()> + Send + use<> {
        // Counted before it is waited for: the response may leave first.
        let waiting = filed.and_then(|(keys, update)| {
            let stored = self.0.config.store.join(&keys, &update).now();
            if !matches!(stored, Ok(Ok(()))) {
                self.0.progress.lock().hop.unstored += 1;
            }
            stored.map(not_stored).err()
        });
        let context = self.clone();
        async move {
            let Some(waiting) = waiting else { return };
            let stored = waiting.await;
            if stored.is_ok() {
                context.0.progress.lock().hop.unstored -= 1;
            }
            not_stored(stored);
        }
    }

    /// What there is to store, and under whose name.
    fn learn(&self, token: &HeaderValue) -> Option<(Vec<SubjectKey>, Update)> {
        let Inner { config, identity, required, progress, .. } = &*self.0;
        let Some(marks) = token.to_str().ok().and_then(|text| identify::open(config, &identity.tenant, text).ok())
        else {
            let mut progress = progress.lock();
            let relayed = &mut progress.hop.relayed;
            let known = relayed.contains(token) || identity.carried.foreign.contains(token);
            // One place is for this service's own token.
            if !known && token.len() <= wire::MAX_TOKEN_LEN && relayed.len() + 1 < wire::MAX_TOKENS {
                relayed.push(token.clone());
            }
            return None;
        };
        if required.marks.covers(&marks) && !marks.is_pending() {
            return None;
        }
        let keys = self.session_keys();
        self.heed(&marks);
        let mut kept: Marks = marks.positions().iter().copied().map(Mark::At).collect();
        if marks.is_unknown() && config.topology.is_some() {
            kept.join(&Marks::unknown());
        }
        let hold = (marks.is_pending() || marks.is_unknown()).then(|| config.window.now());
        Some((keys, Update { marks: kept, hold }))
    }

    /// What the request reads from here on has to contain these.
    pub(super) fn heed(&self, marks: &Marks) {
        {
            let mut progress = self.0.progress.lock();
            progress.hop.marks.join(marks);
            if !self.level().follows_marks() || self.planned(&progress).0 == Route::Primary {
                return;
            }
        }
        let elsewhere = self.again(Excluded::These(&[]));
        let mut progress = self.0.progress.lock();
        match elsewhere {
            Some(decision) => {
                progress.hop.unseen |= !decision.achieved;
                progress.redirected = Some((decision.route, decision.reason));
            }
            // Data layers that ask the replica whether it has got that far refuse the read.
            None => progress.hop.unseen = true,
        }
    }

    /// The session under all names that it may be looked up by; one is born if there is none.
    fn session_keys(&self) -> Vec<SubjectKey> {
        let Inner { config, identity, progress, .. } = &*self.0;
        if !identity.has_session {
            self.keys_to_mark();
            return progress.lock().born.iter().map(|(_, key)| *key).collect();
        }
        let names = if identity.session.is_some() { config.keys.iter().count() } else { 1 };
        identity.keys.iter().take(names).copied().collect()
    }
}

fn not_stored(stored: Result<(), StoreError>) {
    if let Err(error) = stored {
        tracing::warn!(%error, "what another service has answered was not stored");
    }
}
