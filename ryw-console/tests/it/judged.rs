//! From where on something is degraded or critical.

use std::time::Duration;

use axum::http::StatusCode;
use ryw_console::health::{Status, Thresholds, health, is_ready};
use ryw_core::{
    Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use tokio::time::{advance, sleep};
use tower_ryw::{RywLayer, topology::Role};

use crate::stage::{Stage, get, report};

fn verdict(stage: &Stage) -> (Status, Vec<&'static str>) {
    let health = health(&stage.layer, &stage.recorder, &Thresholds::default());
    (health.status, health.findings.iter().map(|finding| finding.check).collect())
}

#[tokio::test(start_paused = true)]
async fn lag_is_degraded_from_10_s_and_critical_from_30_s() {
    let mut stage = Stage::new();
    report(&mut stage.replica, Role::Replica, 100);
    for (seconds, expected) in [
        (9, (Status::Ok, vec![])),
        (1, (Status::Degraded, vec!["lag"])),
        (19, (Status::Degraded, vec!["lag"])),
        (1, (Status::Critical, vec!["lag"])),
    ] {
        advance(Duration::from_secs(seconds)).await;
        report(&mut stage.primary, Role::Primary, 200);
        assert_eq!(verdict(&stage), expected);
    }
    let router = stage.console().into_router();
    assert_eq!(get(&router, "/ryw/health").await.status, StatusCode::SERVICE_UNAVAILABLE);
    report(&mut stage.replica, Role::Replica, 200);
    assert_eq!(verdict(&stage), (Status::Ok, vec![]));
    assert_eq!(get(&router, "/ryw/health").await.status, StatusCode::OK);
}

/// It falls behind no less than one that answers and does not get on.
#[tokio::test(start_paused = true)]
async fn a_standby_that_is_dead_is_degraded_at_once_and_critical_from_30_s() {
    let mut stage = Stage::new();
    report(&mut stage.replica, Role::Replica, 100);
    drop(stage.replica.begin());
    for (seconds, expected) in [
        (0, (Status::Degraded, vec!["node"])),
        (9, (Status::Degraded, vec!["node"])),
        (1, (Status::Degraded, vec!["node", "lag"])),
        (19, (Status::Degraded, vec!["node", "lag"])),
        (1, (Status::Critical, vec!["lag", "node"])),
    ] {
        advance(Duration::from_secs(seconds)).await;
        report(&mut stage.primary, Role::Primary, 200);
        assert_eq!(verdict(&stage), expected, "after {seconds} s more");
    }
    report(&mut stage.replica, Role::Replica, 200);
    assert_eq!(verdict(&stage), (Status::Ok, vec![]));
}

/// Nobody knows how old what it shows is, but for how long it has not answered.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_never_there_is_critical_from_30_s() {
    let mut stage = Stage::new();
    let never = stage.layer.topology().unwrap().add("r2");
    for (seconds, expected) in [(29, Status::Degraded), (1, Status::Critical)] {
        advance(Duration::from_secs(seconds)).await;
        report(&mut stage.primary, Role::Primary, 200);
        report(&mut stage.replica, Role::Replica, 200);
        assert_eq!(verdict(&stage).0, expected);
    }
    drop(never);
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_says_so() {
    let stage = Stage::with(|builder| builder.enabled(false));
    assert_eq!(verdict(&stage), (Status::Degraded, vec!["enforcement"]));
    let answer = get(&stage.console().into_router(), "/ryw/health").await;
    let told: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!((answer.status, &told["enforced"]), (StatusCode::OK, &false.into()));
}

/// Whoever compares a value with its limits need not know that one of them is in another unit.
#[tokio::test(start_paused = true)]
async fn limits_have_the_names_and_units_of_what_they_are_for() {
    let stage = Stage::new();
    stage.request("GET", "me", "RYW").await;
    let answer = get(&stage.console().into_router(), "/ryw/health").await;
    let told: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    for (limit, value, expected) in [
        ("lag_seconds", &told["nodes"][1], (10.0, 30.0)),
        ("p50_ms", &told["reads"], (500.0, 1000.0)),
        ("p95_ms", &told["reads"], (1000.0, 5000.0)),
    ] {
        assert!(value[limit].is_number(), "{limit} of {told}");
        let of = |which| told["thresholds"][limit][which].as_f64().unwrap();
        assert_eq!((of("degraded"), of("critical")), expected, "{limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_primary_it_is_critical_and_ready_as_long_as_a_replica_serves() {
    let mut stage = Stage::new();
    report(&mut stage.replica, Role::Replica, 100);
    assert!(is_ready(&stage.layer));
    drop(stage.primary.begin());
    let (status, checks) = verdict(&stage);
    assert!(status == Status::Critical && checks.contains(&"primary") && checks.contains(&"node"), "{checks:?}");
    assert!(is_ready(&stage.layer));
    drop(stage.replica.begin());
    assert!(!is_ready(&stage.layer));
    assert!(is_ready(&RywLayer::new()), "without positions there is nothing to wait for");
}

/// A store that is away.
#[derive(Debug)]
struct Away;

impl MarkStore for Away {
    fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }

    fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }

    fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }

    fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_degraded_from_50_and_critical_from_100() {
    let key = tower_ryw::Key::new(1, &[7; 32]).unwrap();
    let stage = Stage::with(|builder| builder.store(Away).signing_key(key));
    let mut writes = 0;
    for (until, expected) in
        [(49, Status::Degraded), (50, Status::Degraded), (99, Status::Degraded), (100, Status::Critical)]
    {
        for number in writes..until {
            // The time that it takes to be tried again is not the matter here.
            stage.request("PUT", &format!("s{number}"), "EVENTUAL").await;
        }
        writes = until;
        let health = health(&stage.layer, &stage.recorder, &Thresholds::default());
        let backlog = health.findings.iter().find(|finding| finding.check == "backlog").map(|finding| finding.status);
        let expected = (until >= 50).then_some(expected);
        assert_eq!(backlog, expected, "{until}: {:?}", health.findings);
        assert!(health.findings.iter().any(|finding| finding.check == "store"), "{:?}", health.findings);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_degraded_from_3_and_critical_from_10() {
    let key = tower_ryw::Key::new(1, &[7; 32]).unwrap();
    let stage = Stage::with(|builder| builder.store(Away).signing_key(key));
    stage.request("PUT", "me", "EVENTUAL").await;
    let mut seen = Vec::new();
    while seen.last() != Some(&Status::Critical) {
        sleep(Duration::from_millis(10)).await;
        let tries = stage.layer.store_health().unwrap().tries;
        let health = health(&stage.layer, &stage.recorder, &Thresholds::default());
        let found = health.findings.iter().find(|finding| finding.check == "retries");
        let status = found.map_or(Status::Ok, |finding| finding.status);
        let expected = if tries >= 10 {
            Status::Critical
        } else if tries >= 3 {
            Status::Degraded
        } else {
            Status::Ok
        };
        assert_eq!(status, expected, "{tries} tries");
        if seen.last() != Some(&status) {
            seen.push(status);
        }
    }
    assert_eq!(seen, [Status::Ok, Status::Degraded, Status::Critical]);
}
