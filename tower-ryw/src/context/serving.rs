//! What data layers ask and say: who may serve the request, who does, and what went wrong.

use std::future::Future;

use ryw_core::{
    Position, Reason, Relation,
    seeded::{Bug, is_on},
};

use super::{Inner, RywContext};
use crate::{
    decide::{Decision, Excluded, Route, out_of_order},
    lookup::Doubt,
    outcome::Told,
    policy::{Intent, Terms},
    record::Run,
    route::{Asked, Attempt, Routing, attempt},
    topology::NodeName,
};

/// Why a request that a replica has failed would succeed elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It writes, although it is classified as a read.
    Writes,
    /// This replica could not finish the read.
    Node(NodeName),
}

impl RywContext {
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
        // They are missing where it is decided, and this would make up for that.
        if [Bug::Naive, Bug::TimeoutOpen, Bug::TlToctou].into_iter().any(is_on) {
            return true;
        }
        let view = topology.view();
        let Terms { level, bound, ladder, .. } = identity.terms;
        let in_time = |bound| topology.fresh_as_of(position).is_some_and(|since| since.elapsed() <= bound);
        let Some(lineage) = view.lineage.as_ref().filter(|lineage| lineage.continues(position)) else { return false };
        // Less than what the level demands was allowed, within a bound, and the response says so.
        if !decision.achieved && (required.doubt != Doubt::Unmet || decision.reason == Reason::StaleAllowed) {
            return ladder.stale.is_some_and(in_time);
        }
        let reached = [&required.marks, &self.0.progress.lock().hop.marks]
            .iter()
            .all(|marks| view.relation_in(lineage, marks, position) == Relation::Reached);
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
        self.again(Excluded::These(excluded)).map(|decision| (decision.route, decision.reason))
    }

    /// Why the primary may serve this read when no replica can. `None` where it must not be asked. For data layers.
    pub fn without_replicas(&self) -> Option<Reason> {
        self.again(Excluded::All).filter(|decision| decision.route == Route::Primary).map(|decision| decision.reason)
    }

    /// The decision once more, by what must be visible now: other services may have been called since.
    pub(super) fn again(&self, excluded: Excluded<'_>) -> Option<Decision> {
        let Inner { config, identity, required, decision, progress, .. } = &*self.0;
        let mut now = required.clone();
        now.marks.join(&progress.lock().hop.marks);
        let asked = Asked { waited: decision.waited, excluded, ..Asked::new(&identity.terms, &now) };
        match attempt(config, asked) {
            Attempt::Routed(Routing { decision, permit, .. }) => {
                progress.lock().permits.extend(permit);
                Some(decision)
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
}

#[cfg(test)]
mod tests;
