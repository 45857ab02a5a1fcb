//! A session reads what it has written, and `Ryw-Route` tells the truth about who served it.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    gateway::{Gateway, Served},
    program::DEADLINE,
};

const SESSIONS: u32 = 10;
const WRITES: u32 = 100;

/// Reads by who served them and why: how many, and how many of them were stale.
type Tally = BTreeMap<(String, String), (u32, u32)>;

/// 1000 writes, each read back at once.
async fn write_then_read(gateway: Gateway, level: &'static str) -> (Arc<Gateway>, Tally) {
    let gateway = Arc::new(gateway);
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        sessions.spawn(session(Arc::clone(&gateway), level, number));
    }
    let mut all = Tally::new();
    while let Some(tally) = sessions.join_next().await {
        for (key, (reads, stale)) in tally.unwrap() {
            let sum = all.entry(key).or_default();
            *sum = (sum.0 + reads, sum.1 + stale);
        }
    }
    (gateway, all)
}

async fn session(gateway: Arc<Gateway>, level: &'static str, number: u32) -> Tally {
    let (path, session) = (format!("/v1/memory/acme/key-{number}"), format!("session-{number}"));
    // Seen before, so that what it must see is known, and a label can lie about it.
    gateway.get(&path, &[("x-session-id", &session), ("x-consistency-level", "RYW")]).await;
    let mut tally = Tally::new();
    for value in 1..=WRITES {
        let written = gateway.put(&path, &[("x-session-id", &session)], value.to_string()).await;
        assert_eq!((&*written.served().by, &*written.served().reason), ("primary", "write"));
        assert!(written.header("ryw-token").is_some(), "{written:?}");
        assert_eq!(written.header("x-session-id"), Some(&*session));

        let read = gateway.get(&path, &[("x-session-id", &session), ("x-consistency-level", level)]).await;
        let stale = match read.status {
            StatusCode::OK => read.text().parse::<u32>().unwrap() < value,
            StatusCode::NOT_FOUND => true,
            _ => panic!("{read:?}"),
        };
        let Served { by, reason, level: told } = read.served();
        assert_eq!(told, level.to_ascii_lowercase());
        assert_eq!(read.header("x-session-id"), Some(&*session));
        assert_eq!(read.header("x-consistency-enforced"), Some("true"));
        assert_eq!(read.headers.get_all("ryw-route").iter().count(), 1);
        let tally = tally.entry((by, reason)).or_default();
        *tally = (tally.0 + 1, tally.1 + u32::from(stale));
    }
    tally
}

fn assert_truthful(tally: &Tally) {
    for ((by, reason), (_, stale)) in tally {
        let may_be_stale = by == "replica" && !matches!(&**reason, "caught-up" | "waited");
        assert!(*stale == 0 || may_be_stale, "{stale} stale answers are labelled {by} {reason}: {tally:?}");
    }
}

fn sum(tally: &Tally) -> (u32, u32) {
    tally.values().fold((0, 0), |sum, (reads, stale)| (sum.0 + reads, sum.1 + stale))
}

#[tokio::test]
async fn at_read_your_writes_nothing_is_stale() {
    for lag in ["150", "4"] {
        let (_, tally) = write_then_read(Gateway::start(&["--lag-ms", lag]).await, "RYW").await;
        assert_eq!(sum(&tally), (SESSIONS * WRITES, 0), "{tally:?}");
        assert_truthful(&tally);
    }
}

#[tokio::test]
async fn at_eventual_the_lag_shows_and_is_labelled() {
    let (_, tally) = write_then_read(Gateway::start(&[]).await, "EVENTUAL").await;
    let (reads, stale) = sum(&tally);
    assert_eq!(reads, SESSIONS * WRITES);
    assert!(stale > 0, "there was nothing to protect from: {tally:?}");
    assert_truthful(&tally);
    assert!(tally.keys().all(|(by, _)| by == "replica"), "{tally:?}");
}

#[tokio::test]
async fn replicas_serve_a_session_again_when_they_have_its_write() {
    let (gateway, _) = write_then_read(Gateway::start(&["--lag-ms", "50"]).await, "RYW").await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let headers = [("x-session-id", "session-0"), ("x-consistency-level", "RYW")];
        let read = gateway.get("/v1/memory/acme/key-0", &headers).await;
        assert_eq!(read.text(), WRITES.to_string());
        let Served { by, reason, .. } = read.served();
        if (&*by, &*reason) == ("replica", "caught-up") {
            return;
        }
        assert!(Instant::now() < deadline, "{read:?}");
        sleep(std::time::Duration::from_millis(5)).await;
    }
}
