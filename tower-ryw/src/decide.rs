//! Stage 3: where may this be read?
//!
//! A total, pure function of the level, the marks, the nodes' positions and the time. It is asked again after each
//! wait, and answers with a route, with "wait", or with a refusal.

use std::time::Duration;

use ryw_core::{Level, Marks, Reason, Relation};
use tokio::time::Instant;

use crate::{
    lookup::Required,
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
    pub(crate) now: Instant,
    /// How long the request has waited already.
    pub(crate) waited: Duration,
    /// Whether it may wait (still, or at all).
    pub(crate) may_wait: bool,
    /// Whether the primary's budget has room.
    pub(crate) budget: bool,
    /// Which of several good replicas to take: any number.
    pub(crate) pick: usize,
}

pub(crate) fn decide(question: &Question<'_>) -> Next {
    let Question { terms, required, view, waited, .. } = question;
    if terms.intent == Intent::Write {
        return primary(Reason::Write, *waited);
    }
    if terms.level == Level::Strong {
        return primary(Reason::Strong, *waited);
    }
    match view {
        Some(view) => by_position(question, view),
        None => by_window(terms, required, question.budget),
    }
}

fn primary(reason: Reason, waited: Duration) -> Next {
    Next::Serve(Decision { route: Route::Primary, reason, achieved: true, degraded: false, waited })
}

/// Without positions: a write is taken to be everywhere once its window is over. Only the levels that windows can
/// stand for are served by replicas.
fn by_window(terms: &Terms, required: &Required, budget: bool) -> Next {
    let marks = &required.marks;
    let reason = match terms.level {
        Level::Eventual => {
            let reason = if marks.is_none() { Reason::NoMarks } else { Reason::StaleAllowed };
            return any_replica(reason);
        }
        _ if required.store_failed => Reason::StoreUnavailable,
        Level::ReadYourWrites if marks.is_none() => return any_replica(Reason::NoMarks),
        Level::ReadYourWrites if marks.is_pending() => Reason::Window,
        _ => Reason::UnknownMarks,
    };
    let rungs = Rungs { reason, primary_down: false, stale: None };
    degraded(terms, rungs, budget, Duration::ZERO)
}

fn any_replica(reason: Reason) -> Next {
    let route = Route::Replica { node: None };
    Next::Serve(Decision { route, reason, achieved: true, degraded: false, waited: Duration::ZERO })
}

fn by_position(question: &Question<'_>, view: &View) -> Next {
    let Question { terms, required, waited, .. } = question;
    let marks = &required.marks;
    let reason = match terms.level {
        _ if view.replicas().next().is_none() => Reason::NoReplica,
        level if level.follows_marks() && is_lost(view, marks) => {
            let route = Route::Primary;
            return Next::Serve(Decision {
                route,
                reason: Reason::Lost,
                achieved: false,
                degraded: false,
                waited: *waited,
            });
        }
        level if level.follows_marks() && marks.is_pending() => Reason::PendingWrite,
        level if level.follows_marks() && marks.is_unknown() && required.store_failed => Reason::StoreUnavailable,
        level if level.follows_marks() && marks.is_unknown() => Reason::UnknownMarks,
        _ => match choose(question, view) {
            Some(node) => return Next::Serve(on_replica(question, view, node)),
            None => match worth_waiting_for(question, view) {
                Some(offset) => return Next::Wait { offset },
                None => Reason::Behind,
            },
        },
    };
    let bound = terms.ladder.stale;
    let stale = bound.and_then(|bound| {
        pick(question.pick, || view.replicas().filter(|node| fresh_within(node, question.now, bound)))
    });
    let rungs = Rungs { reason, primary_down: view.primary.is_none(), stale: stale.map(|node| node.name.clone()) };
    degraded(terms, rungs, question.budget, *waited)
}

/// A mark is lost when the primary's own history does not contain it and never will.
fn is_lost(view: &View, marks: &Marks) -> bool {
    marks.lost().is_some() || view.primary().is_some_and(|primary| view.relation(marks, primary) == Relation::Lost)
}

fn choose<'a>(question: &Question<'_>, view: &'a View) -> Option<&'a NodeView> {
    pick(question.pick, || view.replicas().filter(|node| is_good(question, view, node)))
}

fn is_good(question: &Question<'_>, view: &View, node: &NodeView) -> bool {
    match question.terms.level {
        Level::BoundedStaleness(bound) => fresh_within(node, question.now, bound),
        level if level.follows_marks() => view.relation(&question.required.marks, node) == Relation::Reached,
        _ => true,
    }
}

fn fresh_within(node: &NodeView, now: Instant, bound: Duration) -> bool {
    node.state == NodeState::Replica
        && node.fresh_as_of.is_some_and(|since| now.saturating_duration_since(since) <= bound)
}

/// The `number`-th of the candidates, counted around, without collecting them.
fn pick<'a, I>(number: usize, candidates: impl Fn() -> I) -> Option<&'a NodeView>
where
    I: Iterator<Item = &'a NodeView>,
{
    let count = candidates().count();
    if count == 0 { None } else { candidates().nth(number % count) }
}

fn on_replica(question: &Question<'_>, view: &View, node: &NodeView) -> Decision {
    let marks = &question.required.marks;
    let reached = view.relation(marks, node) == Relation::Reached;
    let reason = if marks.is_none() {
        Reason::NoMarks
    } else if !reached || marks.is_pending() || marks.is_unknown() {
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
    if !question.may_wait || !question.terms.level.follows_marks() {
        return None;
    }
    let primary = view.primary()?;
    if view.relation(marks, primary) != Relation::Reached {
        return None;
    }
    marks.positions().iter().map(|position| position.offset()).max()
}

struct Rungs {
    reason: Reason,
    /// There is no primary to ask.
    primary_down: bool,
    /// A replica that is fresh enough for the route's stale rung.
    stale: Option<NodeName>,
}

/// The lower rungs: the primary within its budget, a stale read where allowed, a refusal.
fn degraded(terms: &Terms, rungs: Rungs, budget: bool, waited: Duration) -> Next {
    let refused = if rungs.primary_down || !terms.ladder.primary {
        rungs.reason
    } else if budget {
        let route = Route::Primary;
        return Next::Serve(Decision { route, reason: rungs.reason, achieved: true, degraded: true, waited });
    } else {
        Reason::Budget
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
