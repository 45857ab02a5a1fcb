//! What one instance has written down, the others know.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::http::StatusCode;
use ryw_testing::servers::redis::RedisServer;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, block_in_place},
};

use crate::{
    instances::{Instances, shown},
    program::command,
};

fn launch() -> RedisServer {
    block_in_place(|| RedisServer::builder().start()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_behind_a_round_robin_serve_nothing_stale() {
    let mut redis = launch();
    let instances = Instances::start(3, &[redis.url()]).await;
    let load = instances.load(8);
    load.goes_on("at first").await;
    for round in 1..=3 {
        redis.cli(&["FLUSHALL"]).unwrap();
        load.goes_on(&format!("flush {round}")).await;
    }
    block_in_place(|| {
        redis.kill().unwrap();
        redis.start().unwrap();
    });
    load.goes_on("kill and restart").await;
    block_in_place(|| redis.freeze()).unwrap();
    load.is_served("frozen").await;
    block_in_place(|| redis.thaw()).unwrap();
    load.goes_on("it was frozen").await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_three_stores_any_one_may_die_hang_or_forget() {
    let mut redis = [launch(), launch(), launch()];
    let urls = [0, 1, 2].map(|number| redis[number].url());
    let instances = Instances::start(2, &urls).await;
    let load = instances.load(8);
    load.goes_on("at first").await;
    for victim in 0..3 {
        let other = (victim + 1) % 3;
        block_in_place(|| redis[victim].kill()).unwrap();
        load.goes_on(&format!("{victim} is dead")).await;
        block_in_place(|| redis[victim].start()).unwrap();
        load.goes_on(&format!("{victim} is back, and knows nothing")).await;
        block_in_place(|| redis[other].freeze()).unwrap();
        load.goes_on(&format!("{other} hangs")).await;
        block_in_place(|| redis[other].thaw()).unwrap();
        redis[other].cli(&["FLUSHALL"]).unwrap();
        load.goes_on(&format!("{other} is flushed")).await;
    }
    // Without a quorum it is as with one store that is away.
    block_in_place(|| redis[0].kill().and_then(|()| redis[1].kill())).unwrap();
    load.is_served("one is left").await;
    instances.until_store("that is seen", |store| store["quorum"]["has_quorum"] == false).await;
    block_in_place(|| redis[0].start().and_then(|()| redis[1].start())).unwrap();
    load.goes_on("all are back").await;
    instances.until_store("that is seen", |store| store["quorum"]["available"] == 3).await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_lose_no_mark() {
    const SESSIONS: usize = 10_000;
    let redis = launch();
    let instances = Instances::start(3, &[redis.url()]).await;
    let (in_flight, by_replicas) = (Arc::new(Semaphore::new(32)), Arc::new(AtomicUsize::new(0)));
    let unshared = Arc::new(AtomicUsize::new(0));
    let session = |number: usize| {
        let (instances, in_flight, by_replicas) = (instances.clone(), Arc::clone(&in_flight), Arc::clone(&by_replicas));
        let unshared = Arc::clone(&unshared);
        async move {
            let (path, name) = (format!("/v1/memory/acme/k{number}"), format!("s{number}"));
            let headers = [("x-session-id", &*name), ("x-consistency-level", "RYW")];
            // What is not known to have been shared is written again.
            loop {
                let _permit = in_flight.acquire().await.unwrap();
                let written = instances.at(number).put(&path, &headers, "1").await;
                if written.header("x-consistency-enforced") == Some("true") {
                    break;
                }
                unshared.fetch_add(1, Relaxed);
            }
            for turn in 1..3 {
                let _permit = in_flight.acquire().await.unwrap();
                let read = instances.at(number + turn).get(&path, &headers).await;
                assert_eq!((read.status, shown(&read)), (StatusCode::OK, Some(1)), "{read:?}");
                by_replicas.fetch_add(usize::from(read.served().by == "replica"), Relaxed);
            }
        }
    };
    (0..SESSIONS).map(session).collect::<JoinSet<_>>().join_all().await;
    let by_replicas = by_replicas.load(Relaxed);
    println!("{by_replicas} of {} reads by replicas, {unshared:?} writes repeated", 2 * SESSIONS);
    assert!(by_replicas > 100, "nothing could have been stale");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_has_forgotten_costs_each_session_two_reads_of_the_primary_at_most() {
    const SESSIONS: usize = 300;
    let mut redis = launch();
    let instances = Instances::start(3, &[redis.url()]).await;
    let names: Vec<String> = (0..SESSIONS).map(|number| format!("s{number}")).collect();
    let read = async |turn: usize, number: usize| {
        let headers = [("x-session-id", &*names[number]), ("x-consistency-level", "RYW")];
        let read = instances.at(turn).get(&format!("/v1/memory/acme/k{number}"), &headers).await;
        assert_eq!(shown(&read), Some(1), "{read:?}");
        read.served()
    };
    for (number, name) in names.iter().enumerate() {
        instances.at(number).put(&format!("/v1/memory/acme/k{number}"), &[("x-session-id", name)], "1").await;
    }
    for turn in 0..3 {
        while read(turn, SESSIONS - 1).await.by == "primary" {}
    }
    block_in_place(|| redis.kill()).unwrap();
    for number in 0..30 {
        read(number, number).await;
    }
    instances.until_store("its absence is seen", |store| !store["away_ms"].is_null()).await;
    block_in_place(|| redis.start()).unwrap();
    instances.until_store("it is back", |store| store["away_ms"].is_null()).await;
    let mut most = 0;
    for number in 0..SESSIONS {
        let mut by_primary = Vec::new();
        for turn in 0..9 {
            by_primary.extend(Some(read(number + turn, number).await).filter(|served| served.by == "primary"));
        }
        assert!(by_primary.len() <= 2, "{by_primary:?}");
        most = most.max(by_primary.len());
    }
    println!("{most} reads of the primary at most");
}

#[tokio::test]
async fn without_a_common_key_it_does_not_start() {
    let output = command(&["--listen", "127.0.0.1:0", "--redis", "redis://127.0.0.1:1"]).output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("RYW_TOKEN_KEY"), "{text}");
}
