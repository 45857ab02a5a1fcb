//! Orders of writes, what a primary shows, who has failed, and who has less to do.

use super::*;

#[test]
fn a_write_that_has_an_order_follows_what_the_session_has_written_and_seen() {
    let write = |level, marks| Case { intent: Intent::Write, may_wait: true, ..case(level, marks, &[(100, 0)]) };
    for (level, has_order) in
        [(Eventual, false), (MonotonicReads, false), (ReadYourWrites, false), (Session, true), (Causal, true)]
    {
        let ordered = |refused| if has_order { refused } else { "primary write" };
        check(&write(level, Marks::at(at(500))), "primary write");
        check(&write(level, lost()), ordered("refuse lost"));
        check(&write(level, older()), ordered("refuse behind"));
        check(&write(level, newer()), ordered("refuse behind"));
        let foreign = Position::new(ClusterId::new(2), EPOCH, 1);
        check(&write(level, Marks::at(foreign)), "primary write");
        check(&Case { positions: false, ..write(level, lost()) }, "primary write");
    }
}

#[test]
fn a_primary_that_is_not_known_to_continue_the_session_does_not_achieve_its_level() {
    for level in FOLLOW_MARKS {
        check(&case(level, older(), &[(100, 0)]), "primary behind degraded missed");
    }
    let bounded = BoundedStaleness(Duration::from_millis(250));
    check(&case(bounded, older(), &[(100, 251)]), "primary behind degraded");
}

/// A commit that waits for a synchronous standby can be visible there first.
#[test]
fn a_primary_with_synchronous_standbys_serves_what_it_is_certain_to_show() {
    for (level, shows_less) in [
        (MonotonicReads, "refuse behind"),
        (Session, "refuse behind"),
        (Causal, "refuse behind"),
        // What the session has written itself was visible here before it was acknowledged.
        (ReadYourWrites, "primary behind degraded"),
    ] {
        let behind = |visible| Case { visible, synchronous: true, ..case(level, Marks::at(at(50)), &[(49, 0)]) };
        check(&behind(Some(50)), "primary behind degraded");
        check(&behind(Some(49)), shows_less);
        check(&behind(None), shows_less);
        check(&Case { unsampled: true, ..behind(Some(50)) }, shows_less);
        check(&Case { doubt: Doubt::Unmet, ..behind(Some(50)) }, shows_less);
        // Without any, a commit is visible here first.
        for other in [
            Case { synchronous: false, ..behind(Some(49)) },
            Case { synchronous: false, unsampled: true, ..behind(None) },
        ] {
            check(&other, "primary behind degraded");
        }
        // A standby will have it, and whoever may wait is served there, or here once it is certain.
        check(&Case { may_wait: true, ..behind(Some(49)) }, "wait 50");
    }
}

#[test]
fn whoever_has_failed_a_request_is_not_asked_again() {
    let caught_up = |excluded| Case { excluded, ..case(ReadYourWrites, Marks::at(at(50)), &[(50, 0), (50, 0)]) };
    check(&caught_up(&[]), "r1 caught-up");
    check(&caught_up(&["r1"]), "r2 caught-up");
    check(&caught_up(&["r1", "r2"]), "primary no-replica degraded");
    check(&caught_up(ALL), "primary no-replica degraded");
    for level in [Eventual, ReadYourWrites] {
        let window = Case { positions: false, excluded: ALL, ..case(level, Marks::none(), &[]) };
        check(&window, "primary no-replica degraded");
    }
    let ladder = Ladder::new().primary(false).stale(Duration::from_millis(50));
    let stale = |excluded| Case { ladder, excluded, ..case(ReadYourWrites, Marks::at(at(50)), &[(49, 0)]) };
    check(&stale(&[]), "r1 stale-allowed missed");
    check(&stale(&["r1"]), "refuse no-replica");
}

/// Which replica serves whoever must see 50.
fn picked(view: &View, now: Instant, pick: [usize; 2]) -> String {
    let question = Question {
        terms: &terms(Intent::Read, ReadYourWrites, Ladder::new()),
        required: &Required { marks: Marks::at(at(50)), ..Required::default() },
        view: Some(view),
        now: &Now(Cell::new(Some(now))),
        waited: Duration::ZERO,
        may_wait: false,
        budget: true,
        pick,
        excluded: Excluded::These(&[]),
    };
    match decide(&question) {
        Next::Serve(Decision { route: Route::Replica { node: Some(node) }, .. }) => node.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn good_replicas_take_turns() {
    let now = Instant::now() + Duration::from_secs(60);
    let view = view(&[(50, 0), (10, 0), (60, 0)], now);
    let names = [0, 1, 2, 3].map(|pick| picked(&view, now, [pick, 0]));
    assert_eq!(names, ["r1", "r3", "r1", "r3"]);
}

#[test]
fn of_two_good_replicas_the_one_with_less_to_do_serves() {
    let now = Instant::now() + Duration::from_secs(60);
    let mut view = view(&[(50, 0), (50, 0)], now);
    let used = view.nodes[1].load.begin();
    assert_eq!([[0, 1], [1, 0], [0, 0]].map(|pick| picked(&view, now, pick)), ["r2", "r2", "r1"]);
    drop(used);
    assert_eq!([[0, 1], [1, 0]].map(|pick| picked(&view, now, pick)), ["r1", "r2"]);
    // One that has just come back counts as busier than it is.
    view.nodes[1].back_since = Some(now);
    assert_eq!([[0, 1], [1, 0]].map(|pick| picked(&view, now, pick)), ["r2", "r2"]);
}
