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
