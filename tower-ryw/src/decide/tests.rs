use ryw_core::{ClusterId, Epoch, Lineage, Lost, Mark, Position};

use super::*;
use crate::policy::{Ladder, Source};

mod guards;

const CLUSTER: ClusterId = ClusterId::new(1);
const EPOCH: Epoch = Epoch::new(1);

fn at(offset: u64) -> Position {
    Position::new(CLUSTER, EPOCH, offset)
}

/// A primary at 100, and one replica per entry: where it is, and how many ms old what it shows is.
fn view(replicas: &[(u64, u64)], now: Instant) -> View {
    let node = |name: String, state, offset, age| {
        let mut node = NodeView::unseen(name.into());
        node.state = state;
        (node.applied, node.visible) = (Some(at(offset)), Some(at(offset)));
        (node.asked_at, node.read_at) = (Some(now), Some(now));
        node.fresh_as_of = Some(now - Duration::from_millis(age));
        node
    };
    let primary = node("p".into(), NodeState::Primary, 100, 0);
    let replicas = (1..).zip(replicas).map(|(n, (at, age))| node(format!("r{n}"), NodeState::Replica, *at, *age));
    View {
        lineage: Some(Lineage::new(CLUSTER, EPOCH)),
        primary: Some(0),
        nodes: std::iter::once(primary).chain(replicas).collect(),
        beginning: None,
        heard: None,
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
    unsampled: bool,
    /// Asked for besides the level.
    bound: Option<Duration>,
    /// Whether reads raise marks, where that is not the level's alone to say.
    reads_raise_marks: Option<bool>,
    /// Up to where the primary's own snapshots show everything.
    visible: Option<u64>,
    synchronous: bool,
    excluded: &'static [&'static str],
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
        unsampled: false,
        bound: None,
        reads_raise_marks: None,
        visible: Some(100),
        synchronous: false,
        excluded: &[],
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
    view.nodes[0].visible = case.visible.map(at);
    view.nodes[0].synchronous = case.synchronous;
    if !case.replicas_up {
        view.nodes[1..].iter_mut().for_each(|node| node.state = NodeState::Down);
    }
    let mut terms = terms(case.intent, case.level, case.ladder);
    terms.bound = terms.bound.or(case.bound);
    terms.reads_raise_marks = case.reads_raise_marks.unwrap_or(terms.reads_raise_marks);
    let excluded: Vec<NodeName> = case.excluded.iter().copied().map(NodeName::from).collect();
    let question = Question {
        terms: &terms,
        required: &Required {
            marks: case.marks.clone(),
            store_failed: case.store_failed,
            doubt: case.doubt,
            unsampled: case.unsampled,
            cause: (case.doubt == Doubt::Heeded).then_some(Reason::UnknownMarks),
            ..Required::default()
        },
        view: case.positions.then_some(&view),
        now: &Now(Cell::new(Some(now))),
        waited: Duration::from_millis(case.waited),
        may_wait: case.may_wait,
        budget: case.budget,
        pick: [0, 0],
        excluded: if case.excluded == ALL { Excluded::All } else { Excluded::These(&excluded) },
    };
    let found = match decide(&question) {
        Next::Wait { offset: u64::MAX } => "wait for a failover".to_owned(),
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

/// Excludes every replica.
const ALL: &[&str] = &["all"];

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
        let failed = |marks| Case { store_failed: true, ..case(level, marks, &[(100, 0)]) };
        check(&failed(Marks::unknown()), "primary store-unavailable degraded");
        check(&failed(Marks::at(at(50))), "r1 caught-up");
    }
}

#[test]
fn levels_that_do_not_follow_marks() {
    check(&case(Eventual, Marks::none(), &[(0, 9000)]), "r1 no-marks");
    check(&case(Eventual, Marks::at(at(50)), &[(49, 0)]), "r1 stale-allowed");
    check(&case(Eventual, Marks::at(at(50)), &[(50, 0)]), "r1 caught-up");
    check(&case(Eventual, Marks::pending(), &[(50, 0)]), "r1 stale-allowed");
    check(&case(Eventual, Marks::unknown(), &[(50, 0)]), "r1 stale-allowed");
    check(&Case { store_failed: true, ..case(Eventual, Marks::unknown(), &[(50, 0)]) }, "r1 stale-allowed");
    check(&case(Strong, Marks::none(), &[(100, 0)]), "primary strong");
    check(&Case { primary_up: false, ..case(Strong, Marks::none(), &[(100, 0)]) }, "refuse strong");
    check(&case(Strong, newer(), &[(100, 0)]), "refuse strong");
    let bounded = BoundedStaleness(Duration::from_millis(250));
    check(&case(bounded, Marks::at(at(90)), &[(50, 250)]), "r1 stale-allowed");
    check(&case(bounded, Marks::none(), &[(100, 251), (100, 250)]), "r2 no-marks");
    check(&case(bounded, Marks::none(), &[(100, 251)]), "primary behind degraded");
    // Nobody waits for a mark that decides nothing.
    check(&Case { may_wait: true, ..case(bounded, Marks::at(at(50)), &[(49, 251)]) }, "primary behind degraded");
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
    for level in FOLLOW_MARKS {
        check(&case(level, lost(), &[(100, 0)]), "primary lost degraded missed");
        check(&Case { budget: false, ..case(level, lost(), &[(100, 0)]) }, "refuse budget");
    }
    check(&case(Eventual, lost(), &[(100, 0)]), "r1 stale-allowed");
}

fn lost() -> Marks {
    [Mark::Lost(Lost { epoch: Epoch::new(2), was: EPOCH })].into_iter().collect()
}

/// Of an epoch that has ended, and nobody knows where: the history may contain it, or not.
fn older() -> Marks {
    Marks::at(Position::new(CLUSTER, Epoch::new(0), 50))
}

/// Of an epoch that nobody here has heard of.
fn newer() -> Marks {
    Marks::at(Position::new(CLUSTER, Epoch::new(2), 130))
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
    let unmet = |marks| Case { doubt: Doubt::Unmet, ..window(ReadYourWrites, marks) };
    check(&unmet(Marks::none()), "any unknown-marks missed");
    check(&unmet(Marks::pending()), "primary window degraded");
    // A window stands for what the session has written, and for nothing that somebody else has.
    let bound = Some(Duration::from_secs(1));
    check(&Case { bound, ..window(ReadYourWrites, Marks::none()) }, "primary unknown-marks degraded");
    let raised = Case { reads_raise_marks: Some(true), ..window(ReadYourWrites, Marks::none()) };
    check(&raised, "primary unknown-marks degraded");
    check(
        &Case { store_failed: true, ..window(ReadYourWrites, Marks::unknown()) },
        "primary store-unavailable degraded",
    );
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
    for level in FOLLOW_MARKS {
        check(&case(level, newer(), &[(100, 0)]), "refuse behind");
        check(&Case { may_wait: true, ..case(level, newer(), &[(100, 0)]) }, "wait for a failover");
    }
    check(&case(Eventual, newer(), &[(100, 0)]), "r1 stale-allowed");
}
