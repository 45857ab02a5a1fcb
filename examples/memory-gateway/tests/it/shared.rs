//! Several instances, and clients that carry neither token nor cookie: what one has written down, the others know.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use axum::http::StatusCode;
use parking_lot::Mutex;
use ryw_testing::servers::{
    postgres::{Cluster, Standby},
    redis::RedisServer,
};
use tokio::{
    task::{JoinSet, block_in_place},
    time::{Duration, Instant, sleep},
};

use crate::{
    gateway::{Gateway, Reply},
    program::{DEADLINE, command},
};

const SESSIONS: u32 = 8;
/// 32 bytes, the same for all instances.
const KEY: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    reads: AtomicU64,
    by_replicas: AtomicU64,
    /// Writes whose response promises that everybody knows of them.
    shared: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

fn shown(read: &Reply) -> Option<u64> {
    match read.status {
        StatusCode::OK => Some(read.text().parse().unwrap()),
        StatusCode::NOT_FOUND => Some(0),
        _ => None,
    }
}

/// Each request goes to the next instance.
async fn session(counts: Arc<Counts>, gateways: Arc<[Gateway]>, number: u32) {
    let (path, name) = (format!("/v1/memory/acme/k{number}"), format!("s{number}"));
    let headers = [("x-session-id", &*name), ("x-consistency-level", "RYW")];
    let mut next = (number as usize..).map(|turn| &gateways[turn % gateways.len()]);
    let mut known = 0;
    for value in 1_u64.. {
        if counts.stop.load(Relaxed) {
            return;
        }
        let written = next.next().unwrap().send("PUT", &path, &headers, value.to_string()).await;
        let is_shared = written.header("x-consistency-enforced") != Some("false");
        if written.status == StatusCode::NO_CONTENT && is_shared {
            known = value;
            counts.shared.fetch_add(1, Relaxed);
        }
        for _ in 0..3 {
            let read = next.next().unwrap().get(&path, &headers).await;
            let Some(shown) = shown(&read) else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            counts.reads.fetch_add(1, Relaxed);
            counts.by_replicas.fetch_add(u64::from(read.served().by == "replica"), Relaxed);
            if shown < known {
                counts.wrong.lock().push(format!("{name}: {shown} < {known}, {:?}", read.headers));
            }
        }
    }
}

impl Counts {
    /// Until so many further reads have been served, also by replicas, after further writes that everybody knows of.
    async fn go_on(&self, what: &str) {
        let all = || [&self.reads, &self.by_replicas, &self.shared].map(|count| count.load(Relaxed));
        let (before, started) = (all(), Instant::now());
        while all().iter().zip(before).zip([300, 30, 50]).any(|((now, before), more)| *now < before + more) {
            assert!(started.elapsed() < DEADLINE, "{what}: it does not go on: {before:?} {:?}", all());
            sleep(Duration::from_millis(10)).await;
        }
        let wrong = self.wrong.lock();
        assert!(wrong.is_empty(), "{what}: {} stale reads, of which the first: {}", wrong.len(), wrong[0]);
        println!("{what}: goes on after {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_behind_a_round_robin_serve_nothing_stale() {
    let late = Standby::named("b").apply_delay(Duration::from_millis(100));
    let start = || Cluster::builder().standby(Standby::named("a")).standby(late).start();
    let cluster = block_in_place(start).unwrap();
    let mut redis = block_in_place(|| RedisServer::builder().start()).unwrap();
    let urls = [cluster.primary().url(), cluster.standbys()[0].url(), cluster.standbys()[1].url(), redis.url()];
    let [primary, a, b, shared] = &urls;
    let arguments =
        ["--listen", "127.0.0.1:0", "--primary", primary, "--replica", a, "--replica", b, "--redis", shared];
    let mut gateways = Vec::new();
    for _ in 0..3 {
        let mut command = command(&arguments);
        command.env("RYW_TOKEN_KEY", KEY);
        gateways.push(Gateway::from(command).await);
    }
    let gateways: Arc<[Gateway]> = gateways.into();
    let counts = Arc::new(Counts::default());
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        sessions.spawn(session(Arc::clone(&counts), Arc::clone(&gateways), number));
    }
    counts.go_on("at first").await;
    for round in 1..=3 {
        redis.cli(&["FLUSHALL"]).unwrap();
        counts.go_on(&format!("flush {round}")).await;
    }
    block_in_place(|| {
        redis.kill().unwrap();
        redis.start().unwrap();
    });
    counts.go_on("kill and restart").await;
    block_in_place(|| redis.freeze()).unwrap();
    let before = counts.reads.load(Relaxed);
    let frozen = Instant::now();
    while counts.reads.load(Relaxed) < before + 300 {
        assert!(frozen.elapsed() < DEADLINE, "no service without Redis");
        sleep(Duration::from_millis(10)).await;
    }
    block_in_place(|| redis.thaw()).unwrap();
    counts.go_on("it was frozen").await;
    counts.stop.store(true, Relaxed);
    sessions.join_all().await;
    let wrong = counts.wrong.lock();
    assert!(wrong.is_empty(), "{}", wrong[0]);
    println!("{} reads, {} by replicas", counts.reads.load(Relaxed), counts.by_replicas.load(Relaxed));
}

#[tokio::test]
async fn without_a_common_key_it_does_not_start() {
    let output = command(&["--listen", "127.0.0.1:0", "--redis", "redis://127.0.0.1:1"]).output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("RYW_TOKEN_KEY"), "{text}");
}
