//! Stage 3: where may this be read?
//!
//! A total, pure function of the level, the marks, the nodes' positions and the time. It is asked again after each
//! wait, and answers with a route, with "wait", or with a refusal.

use std::{cell::Cell, time::Duration};

use ryw_core::{
    Level, Marks, Position, Reason, Relation,
    seeded::{Bug, is_on},
};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    lookup::{Doubt, Required},
    policy::{Intent, Terms},
    topology::{NodeName, NodeState, NodeView, View},
};

/// Where a request is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// By the primary.
    Primary,
    /// By this replica, or by any replica where none is named.
    Replica {
        /// The replica to use.
        node: Option<NodeName>,
    },
}

/// A route, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) route: Route,
    pub(crate) reason: Reason,
    /// Whether the level is achieved.
    pub(crate) achieved: bool,
    /// Whether the read is on the primary only because no replica is fresh enough.
    pub(crate) degraded: bool,
    pub(crate) waited: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Serve(Decision),
    /// Wait until some replica reports this offset or more, then ask again.
    Wait {
        offset: u64,
    },
    Refuse(Reason),
}

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) terms: &'a Terms,
    pub(crate) required: &'a Required,
    pub(crate) view: Option<&'a View>,
    pub(crate) now: &'a Now,
    /// How long the request has waited already.
    pub(crate) waited: Duration,
    /// Whether it may wait (still, or at all).
    pub(crate) may_wait: bool,
    /// Whether the primary's budget has room.
    pub(crate) budget: bool,
    /// Which of several good replicas to compare: any two numbers.
    pub(crate) pick: [usize; 2],
    /// Who has failed this request already.
    pub(crate) excluded: Excluded<'a>,
}

/// The time of a decision, read by whoever asks for it first: most decisions depend on none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now(Cell<Option<Instant>>);

impl Now {
    pub(crate) fn get(&self) -> Instant {
        let now = self.0.get().unwrap_or_else(Instant::now);
        self.0.set(Some(now));
        now
    }
}

/// Replicas that can't serve a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Excluded<'a> {
    These(&'a [NodeName]),
    All,
}

impl Excluded<'_> {
    fn contains(self, node: &NodeView) -> bool {
        match self {
            Self::These(nodes) => nodes.contains(&node.name),
            Self::All => true,
        }
    }
}

pub(crate) fn decide(question: &Question<'_>) -> Next {
    let Question { terms, required, view, waited, .. } = question;
    if terms.intent == Intent::Write {
        return match view.and_then(|view| out_of_order(terms, &required.marks, view)) {
            Some(reason) => Next::Refuse(reason),
            None => primary(Reason::Write, *waited),
        };
    }
    if terms.level == Level::Strong {
        // Whoever else is left may be a standby by now, and who is known to be the primary may be none.
        let headless = view.is_some_and(|view| view.primary.is_none() || view.is_outdated(&required.marks));
        return if headless { Next::Refuse(Reason::Strong) } else { primary(Reason::Strong, *waited) };
    }
    match view {
        Some(view) => by_position(question, view),
        None => by_window(question),
    }
}

/// Why a write must not be made now: the history that it would be added to is not known to contain what it is to follow.
pub(crate) fn out_of_order(terms: &Terms, marks: &Marks, view: &View) -> Option<Reason> {
    if !terms.orders_writes() {
        None
    } else if view.lost(marks).is_some() {
        Some(Reason::Lost)
    } else {
        (!view.continues(marks)).then_some(Reason::Behind)
    }
}

fn primary(reason: Reason, waited: Duration) -> Next {
    Next::Serve(Decision { route: Route::Primary, reason, achieved: true, degraded: false, waited })
}

/// Without positions: a write is taken to be everywhere once its window is over. Only the levels that windows can
/// stand for are served by replicas.
fn by_window(question: &Question<'_>) -> Next {
    let Question { terms, required, waited, .. } = question;
    let marks = &required.marks;
    let reason = match terms.level {
        _ if matches!(question.excluded, Excluded::All) => Reason::NoReplica,
        Level::Eventual => {
            let reason = if marks.is_none() { Reason::NoMarks } else { Reason::StaleAllowed };
            return any_replica(reason);
        }
        _ if required.store_failed => Reason::StoreUnavailable,
        _ if terms.bound.is_some() || terms.reads_raise_marks => Reason::UnknownMarks,
        Level::ReadYourWrites if marks.is_none() && required.doubt == Doubt::Unmet => return unmet(None, *waited),
        Level::ReadYourWrites if marks.is_none() => return any_replica(Reason::NoMarks),
        Level::ReadYourWrites if marks.is_pending() => Reason::Window,
        _ => Reason::UnknownMarks,
    };
    let rungs = Rungs { reason, primary: Some(true), stale: None };
    degraded(question, rungs)
}

fn any_replica(reason: Reason) -> Next {
    let route = Route::Replica { node: None };
    Next::Serve(Decision { route, reason, achieved: true, degraded: false, waited: Duration::ZERO })
}

/// Whoever has brought a token that nobody believes is served as if there were none, and told so.
fn unmet(node: Option<NodeName>, waited: Duration) -> Next {
    let (route, reason) = (Route::Replica { node }, Reason::UnknownMarks);
    Next::Serve(Decision { route, reason, achieved: false, degraded: false, waited })
}

fn by_position(question: &Question<'_>, view: &View) -> Next {
    let Question { terms, required, waited, .. } = question;
    let marks = &required.marks;
    if let Some(next) = seeded(question, view) {
        return next;
    }
    let reason = match terms.level {
        level if level.follows_marks() && view.lost(marks).is_some() => {
            if !question.budget {
                return Next::Refuse(Reason::Budget);
            }
            let route = Route::Primary;
            return Next::Serve(Decision {
                route,
                reason: Reason::Lost,
                achieved: false,
                degraded: true,
                waited: *waited,
            });
        }
        // The primary that is known may be none; whoever has the mark is met in a moment.
        level if level.follows_marks() && view.is_outdated(marks) => {
            return if question.may_wait { Next::Wait { offset: u64::MAX } } else { Next::Refuse(Reason::Behind) };
        }
        // A database without replicas is not degraded.
        _ if view.primary.is_some() && view.nodes.len() == 1 => return primary(Reason::NoReplica, *waited),
        _ if view.replicas().all(|node| question.excluded.contains(node)) => Reason::NoReplica,
        level if level.follows_marks() && marks.is_pending() => Reason::PendingWrite,
        level if level.follows_marks() && marks.is_unknown() && required.store_failed => Reason::StoreUnavailable,
        level if level.follows_marks() && marks.is_unknown() => Reason::UnknownMarks,
        _ => match choose(question, view) {
            Some(node) if required.doubt == Doubt::Unmet => return unmet(Some(node.name.clone()), *waited),
            Some(node) => return Next::Serve(on_replica(question, view, node)),
            None => match worth_waiting_for(question, view) {
                Some(offset) => return Next::Wait { offset },
                None => required.cause.unwrap_or(Reason::Behind),
            },
        },
    };
    if is_on(Bug::TimeoutOpen)
        && let Some(late) = pick(question, view.replicas())
    {
        return Next::Serve(on_replica(question, view, late));
    }
    let bound = terms.ladder.stale;
    let stale =
        bound.and_then(|bound| pick(question, view.replicas().filter(|node| fresh_within(node, question.now, bound))));
    let primary = view.primary().filter(|primary| shows(terms, required, view, primary));
    let stale = stale.map(|node| node.name.clone());
    if primary.is_none()
        && let Some(offset) = worth_waiting_for(question, view)
    {
        return Next::Wait { offset };
    }
    let achieves = !terms.level.follows_marks() || view.continues(marks);
    degraded(question, Rungs { reason, primary: primary.map(|_| achieves), stale })
}

/// Whether the primary's own snapshots show what the session has seen: a commit that waits for a synchronous standby
/// can be visible there first. What the session has written itself was visible here before it was acknowledged.
fn shows(terms: &Terms, required: &Required, view: &View, primary: &NodeView) -> bool {
    if !terms.reads_raise_marks || !primary.synchronous || is_on(Bug::PrimaryFresh) {
        return true;
    }
    if required.unsampled || required.doubt == Doubt::Unmet {
        // Nobody knows what that is.
        return false;
    }
    let marks = &required.marks;
    let visible = view.lineage.as_ref().zip(primary.visible);
    visible.is_some_and(|(lineage, visible)| view.relation_in(lineage, marks, visible) == Relation::Reached)
}

/// What a missing guard lets through, where a test has taken it away.
fn seeded(question: &Question<'_>, view: &View) -> Option<Next> {
    let waits = is_on(Bug::TlToctou) && question.waited > Duration::ZERO && question.may_wait;
    let offset = question.required.marks.positions().iter().map(|position| position.offset()).max();
    let serves = |node: &&NodeView| is_on(Bug::Naive) || waits && node.applied.map(Position::offset) >= offset;
    if !is_on(Bug::Naive) && !waits {
        return None;
    }
    match pick(question, view.replicas().filter(serves)) {
        Some(node) => Some(Next::Serve(on_replica(question, view, node))),
        None => offset.filter(|_| waits).map(|offset| Next::Wait { offset }),
    }
}

fn choose<'a>(question: &Question<'_>, view: &'a View) -> Option<&'a NodeView> {
    let good = |node: &&NodeView| is_good(question, view, node);
    pick(question, view.replicas().filter(good))
}

fn is_good(question: &Question<'_>, view: &View, node: &NodeView) -> bool {
    let Terms { level, bound, .. } = question.terms;
    let fresh = bound.is_none_or(|bound| fresh_within(node, question.now, bound));
    fresh && (!level.follows_marks() || view.relation(&question.required.marks, node) == Relation::Reached)
}

fn fresh_within(node: &NodeView, now: &Now, bound: Duration) -> bool {
    node.state == NodeState::Replica
        && node.fresh_as_of.is_some_and(|since| now.get().saturating_duration_since(since) <= bound)
}

/// The power of two choices (Mitzenmacher, 2001): of two candidates taken at random, the one that has less to do. Two
/// are enough to keep loads even, and nobody herds to the one that looked idle when it was last read.
fn pick<'a>(question: &Question<'_>, candidates: impl Iterator<Item = &'a NodeView>) -> Option<&'a NodeView> {
    let mut candidates = candidates.filter(|node| !question.excluded.contains(node));
    let only = candidates.next()?;
    let Some(other) = candidates.next() else { return Some(only) };
    let able: SmallVec<[&NodeView; 8]> = [only, other].into_iter().chain(candidates).collect();
    let [first, second] = question.pick.map(|number| able[number % able.len()]);
    let strain = |node: &NodeView| node.strain(|| question.now.get());
    Some(if strain(second) < strain(first) { second } else { first })
}

fn on_replica(question: &Question<'_>, view: &View, node: &NodeView) -> Decision {
    let marks = &question.required.marks;
    let reached = view.relation(marks, node) == Relation::Reached;
    let reason = if marks.is_none() {
        Reason::NoMarks
    } else if !reached || marks.is_pending() || marks.is_unknown() || marks.lost().is_some() {
        // Only the levels that don't follow marks get here.
        Reason::StaleAllowed
    } else if question.waited > Duration::ZERO {
        Reason::Waited
    } else {
        Reason::CaughtUp
    };
    Decision {
        route: Route::Replica { node: Some(node.name.clone()) },
        reason,
        achieved: true,
        degraded: false,
        waited: question.waited,
    }
}

/// The offset to wait for, when waiting can help: a mark ahead of everything the primary has written is no mark of
/// this database, and nobody waits for it.
fn worth_waiting_for(question: &Question<'_>, view: &View) -> Option<u64> {
    let marks = &question.required.marks;
    // Nobody waits for what may be made up.
    let is_proven = question.required.doubt != Doubt::Heeded;
    if !question.may_wait || !question.terms.level.follows_marks() || !is_proven {
        return None;
    }
    let primary = view.primary()?;
    if view.relation(marks, primary) != Relation::Reached {
        return None;
    }
    view.own(marks).positions().iter().map(|position| position.offset()).max()
}

struct Rungs {
    reason: Reason,
    /// Whether the primary achieves the level; `None` where there is no primary to ask.
    primary: Option<bool>,
    /// A replica that is fresh enough for the route's stale rung.
    stale: Option<NodeName>,
}

/// The lower rungs: the primary within its budget, a stale read where allowed, a refusal.
fn degraded(question: &Question<'_>, rungs: Rungs) -> Next {
    let Question { terms, budget, waited, .. } = *question;
    let refused = match rungs.primary.filter(|_| terms.ladder.primary) {
        None => rungs.reason,
        Some(_) if !budget => Reason::Budget,
        Some(achieved) => {
            let route = Route::Primary;
            return Next::Serve(Decision { route, reason: rungs.reason, achieved, degraded: true, waited });
        }
    };
    match rungs.stale {
        Some(node) => Next::Serve(Decision {
            route: Route::Replica { node: Some(node) },
            reason: Reason::StaleAllowed,
            achieved: false,
            degraded: false,
            waited,
        }),
        None => Next::Refuse(refused),
    }
}

#[cfg(test)]
mod tests;
