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
mod tests {
    use ryw_core::{ClusterId, Epoch, Lineage, Lost, Mark, Position};

    use super::*;
    use crate::{
        policy::{Ladder, Source},
        topology::{Incarnation, Load},
    };

    const CLUSTER: ClusterId = ClusterId::new(1);
    const EPOCH: Epoch = Epoch::new(1);

    fn at(offset: u64) -> Position {
        Position::new(CLUSTER, EPOCH, offset)
    }

    /// A primary at 100, and one replica per entry: where it is, and how many ms old what it shows is.
    fn view(replicas: &[(u64, u64)], now: Instant) -> View {
        let node = |name: String, state, offset, age| NodeView {
            name: name.into(),
            state,
            applied: Some(at(offset)),
            visible: Some(at(offset)),
            incarnation: Incarnation::default(),
            synchronous: false,
            asked_at: Some(now),
            read_at: Some(now),
            readings: 0,
            fresh_as_of: Some(now - Duration::from_millis(age)),
            back_since: None,
            load: Load::default(),
        };
        let primary = node("p".into(), NodeState::Primary, 100, 0);
        let replicas = (1..).zip(replicas).map(|(n, (at, age))| node(format!("r{n}"), NodeState::Replica, *at, *age));
        View {
            lineage: Some(Lineage::new(CLUSTER, EPOCH)),
            primary: Some(0),
            nodes: std::iter::once(primary).chain(replicas).collect(),
            beginning: None,
        }
    }

    struct Case {
        level: Level,
        marks: Marks,
        replicas: &'static [(u64, u64)],
        ladder: Ladder,
        intent: Intent,
        may_wait: bool,
        budget: bool,
        primary_up: bool,
        replicas_up: bool,
        store_failed: bool,
        doubt: Doubt,
        positions: bool,
        waited: u64,
    }

    fn case(level: Level, marks: Marks, replicas: &'static [(u64, u64)]) -> Case {
        Case {
            level,
            marks,
            replicas,
            ladder: Ladder::new(),
            intent: Intent::Read,
            may_wait: false,
            budget: true,
            primary_up: true,
            replicas_up: true,
            store_failed: false,
            doubt: Doubt::None,
            positions: true,
            waited: 0,
        }
    }

    fn terms(intent: Intent, level: Level, ladder: Ladder) -> Terms {
        let bound = if let BoundedStaleness(bound) = level { Some(bound) } else { None };
        let reads_raise_marks = level.reads_raise_marks();
        Terms { intent, level, bound, reads_raise_marks, ladder, strict_writes: false, source: Source::Manual, rule: 0 }
    }

    fn check(case: &Case, expected: &str) {
        let now = Instant::now() + Duration::from_secs(60);
        let mut view = view(case.replicas, now);
        if !case.primary_up {
            view.nodes[0].state = NodeState::Down;
            view.primary = None;
        }
        if !case.replicas_up {
            view.nodes[1..].iter_mut().for_each(|node| node.state = NodeState::Down);
        }
        let question = Question {
            terms: &terms(case.intent, case.level, case.ladder),
            required: &Required {
                marks: case.marks.clone(),
                store_failed: case.store_failed,
                doubt: case.doubt,
                cause: (case.doubt == Doubt::Heeded).then_some(Reason::UnknownMarks),
                ..Required::default()
            },
            view: case.positions.then_some(&view),
            now: &Now(Cell::new(Some(now))),
            waited: Duration::from_millis(case.waited),
            may_wait: case.may_wait,
            budget: case.budget,
            pick: [0, 0],
            excluded: Excluded::These(&[]),
        };
        let found = match decide(&question) {
            Next::Wait { offset } => format!("wait {offset}"),
            Next::Refuse(reason) => format!("refuse {reason}"),
            Next::Serve(Decision { route, reason, achieved, degraded, .. }) => {
                let node = match route {
                    Route::Primary => "primary".to_owned(),
                    Route::Replica { node: Some(node) } => node.to_string(),
                    Route::Replica { node: None } => "any".to_owned(),
                };
                let degraded = if degraded { " degraded" } else { "" };
                let missed = if achieved { "" } else { " missed" };
                format!("{node} {reason}{degraded}{missed}")
            }
        };
        assert_eq!(found, expected, "{:?} {:?} {:?}", case.level, case.marks, case.replicas);
    }

    use Level::{BoundedStaleness, Causal, Eventual, MonotonicReads, ReadYourWrites, Session, Strong};

    const FOLLOW_MARKS: [Level; 4] = [MonotonicReads, ReadYourWrites, Session, Causal];

    #[test]
    fn marks_choose_the_node() {
        for level in FOLLOW_MARKS {
            check(&case(level, Marks::none(), &[(0, 9000)]), "r1 no-marks");
            check(&case(level, Marks::at(at(50)), &[(50, 0)]), "r1 caught-up");
            check(&case(level, Marks::at(at(50)), &[(49, 0), (51, 0)]), "r2 caught-up");
            check(&case(level, Marks::at(at(50)), &[(49, 0)]), "primary behind degraded");
            check(&case(level, Marks::pending(), &[(100, 0)]), "primary pending-write degraded");
            check(&case(level, Marks::unknown(), &[(100, 0)]), "primary unknown-marks degraded");
            check(&case(level, Marks::none(), &[]), "primary no-replica");
            let failed = Case { store_failed: true, ..case(level, Marks::unknown(), &[(100, 0)]) };
            check(&failed, "primary store-unavailable degraded");
        }
    }

    #[test]
    fn levels_that_do_not_follow_marks() {
        check(&case(Eventual, Marks::none(), &[(0, 9000)]), "r1 no-marks");
        check(&case(Eventual, Marks::at(at(50)), &[(49, 0)]), "r1 stale-allowed");
        check(&case(Eventual, Marks::at(at(50)), &[(50, 0)]), "r1 caught-up");
        check(&case(Eventual, Marks::pending(), &[(50, 0)]), "r1 stale-allowed");
        check(&case(Strong, Marks::none(), &[(100, 0)]), "primary strong");
        check(&Case { primary_up: false, ..case(Strong, Marks::none(), &[(100, 0)]) }, "refuse strong");
        let bounded = BoundedStaleness(Duration::from_millis(250));
        check(&case(bounded, Marks::at(at(90)), &[(50, 250)]), "r1 stale-allowed");
        check(&case(bounded, Marks::none(), &[(100, 251), (100, 250)]), "r2 no-marks");
        check(&case(bounded, Marks::none(), &[(100, 251)]), "primary behind degraded");
    }

    #[test]
    fn writes_go_to_the_primary_whatever_is_known() {
        for level in FOLLOW_MARKS.into_iter().chain([Eventual, Strong]) {
            let write = Case { intent: Intent::Write, primary_up: false, ..case(level, Marks::unknown(), &[(100, 0)]) };
            check(&write, "primary write");
        }
    }

    #[test]
    fn a_wait_only_where_it_can_help() {
        let behind = |mark, replicas| Case { may_wait: true, ..case(ReadYourWrites, Marks::at(at(mark)), replicas) };
        check(&behind(50, &[(49, 0)]), "wait 50");
        check(&Case { waited: 3, ..behind(50, &[(50, 0)]) }, "r1 waited");
        check(&behind(101, &[(49, 0)]), "primary behind degraded");
        check(&Case { primary_up: false, ..behind(50, &[(49, 0)]) }, "refuse behind");
        check(
            &Case { may_wait: true, ..case(ReadYourWrites, Marks::pending(), &[(1, 0)]) },
            "primary pending-write degraded",
        );
        let foreign = Position::new(ClusterId::new(2), EPOCH, 1);
        let foreign = Case { may_wait: true, ..case(ReadYourWrites, Marks::at(foreign), &[(100, 0)]) };
        check(&foreign, "primary behind degraded");
    }

    #[test]
    fn the_lower_rungs() {
        let behind = |ladder| Case { ladder, ..case(ReadYourWrites, Marks::at(at(50)), &[(49, 300), (48, 100)]) };
        let (ladder, stale) = (Ladder::new(), Ladder::new().stale(Duration::from_millis(200)));
        check(&behind(ladder), "primary behind degraded");
        check(&Case { budget: false, ..behind(ladder) }, "refuse budget");
        check(&Case { budget: false, ..behind(stale) }, "r2 stale-allowed missed");
        check(&Case { primary_up: false, ..behind(stale) }, "r2 stale-allowed missed");
        check(&Case { primary_up: false, ..behind(ladder) }, "refuse behind");
        check(&behind(ladder.primary(false)), "refuse behind");
        check(&behind(stale.primary(false)), "r2 stale-allowed missed");
        let hopeless = Ladder::new().stale(Duration::from_millis(50));
        check(&behind(hopeless.primary(false)), "refuse behind");
        let down = Case { replicas_up: false, ..behind(ladder) };
        check(&down, "primary no-replica degraded");
        check(&Case { budget: false, ..down }, "refuse budget");
        let none = Case { primary_up: false, ..case(Eventual, Marks::none(), &[]) };
        check(&none, "refuse no-replica");
    }

    #[test]
    fn a_loss_is_told_and_never_served_by_a_replica() {
        let lost: Marks = [Mark::Lost(Lost { epoch: Epoch::new(2), was: EPOCH })].into_iter().collect();
        check(&case(Session, lost.clone(), &[(100, 0)]), "primary lost degraded missed");
        check(&case(Eventual, lost, &[(100, 0)]), "r1 stale-allowed");
    }

    #[test]
    fn without_positions_a_window_decides() {
        let window = |level, marks| Case { positions: false, ..case(level, marks, &[]) };
        check(&window(ReadYourWrites, Marks::none()), "any no-marks");
        check(&window(ReadYourWrites, Marks::pending()), "primary window degraded");
        check(&window(ReadYourWrites, Marks::unknown()), "primary unknown-marks degraded");
        check(&window(ReadYourWrites, Marks::at(at(1))), "primary unknown-marks degraded");
        check(&window(Eventual, Marks::none()), "any no-marks");
        check(&window(Eventual, Marks::pending()), "any stale-allowed");
        check(&window(Strong, Marks::none()), "primary strong");
        for level in [MonotonicReads, Session, Causal, BoundedStaleness(Duration::from_secs(1))] {
            check(&window(level, Marks::none()), "primary unknown-marks degraded");
        }
        check(&Case { budget: false, ..window(ReadYourWrites, Marks::pending()) }, "refuse budget");
        check(
            &Case { store_failed: true, ..window(ReadYourWrites, Marks::unknown()) },
            "primary store-unavailable degraded",
        );
    }

    #[test]
    fn good_replicas_take_turns() {
        let now = Instant::now() + Duration::from_secs(60);
        let view = view(&[(50, 0), (10, 0), (60, 0)], now);
        let terms = terms(Intent::Read, ReadYourWrites, Ladder::new());
        let required = Required { marks: Marks::at(at(50)), ..Required::default() };
        let names = (0..4).map(|pick| {
            let question = Question {
                terms: &terms,
                required: &required,
                view: Some(&view),
                now: &Now(Cell::new(Some(now))),
                waited: Duration::ZERO,
                may_wait: false,
                budget: true,
                pick: [pick, 0],
                excluded: Excluded::These(&[]),
            };
            match decide(&question) {
                Next::Serve(Decision { route: Route::Replica { node: Some(node) }, .. }) => node.to_string(),
                other => format!("{other:?}"),
            }
        });
        assert_eq!(names.collect::<Vec<_>>(), ["r1", "r3", "r1", "r3"]);
    }

    #[test]
    fn what_is_not_proven_is_not_waited_for_and_told_by_its_cause() {
        for (doubt, replica, expected) in [
            (Doubt::None, 50, "wait 80"),
            (Doubt::Heeded, 50, "primary unknown-marks degraded"),
            (Doubt::Heeded, 80, "r1 caught-up"),
            (Doubt::Unmet, 80, "r1 unknown-marks missed"),
            (Doubt::Unmet, 50, "wait 80"),
        ] {
            for level in FOLLOW_MARKS {
                let replicas: &'static [(u64, u64)] = if replica == 50 { &[(50, 0)] } else { &[(80, 0)] };
                let case = Case { doubt, may_wait: true, ..case(level, Marks::at(at(80)), replicas) };
                check(&case, expected);
            }
        }
    }

    #[test]
    fn a_mark_of_a_newer_epoch_is_not_served_by_the_primary_of_an_older_one() {
        let newer = Marks::at(Position::new(CLUSTER, Epoch::new(2), 130));
        for level in FOLLOW_MARKS {
            check(&case(level, newer.clone(), &[(100, 0)]), "refuse behind");
        }
    }
}
