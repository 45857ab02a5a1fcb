//! Under load, through everything that happens to nodes: nobody reads less than was acknowledged without being told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::StatusCode;
use parking_lot::Mutex;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    task::{JoinSet, block_in_place},
    time::{Instant, sleep},
};

use crate::{
    gateway::{Gateway, Reply},
    program::DEADLINE,
};

const SESSIONS: u32 = 12;

/// Sessions that write and read until they are told to stop.
#[derive(Clone, Default)]
struct Load(Arc<Counts>);

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    reads: AtomicU64,
    by_replicas: AtomicU64,
    errors: AtomicU64,
    told: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    async fn session(self, gateway: Arc<Gateway>, number: u32) {
        let (path, name) = (format!("/v1/memory/acme/k{number}"), format!("s{number}"));
        let headers = [("x-session-id", &*name), ("x-consistency-level", "SESSION")];
        let acknowledge = [headers[0], headers[1], ("ryw-lost", "ack")];
        let mut acknowledged = 0;
        for value in 1_u64.. {
            if self.0.stop.load(Relaxed) {
                return;
            }
            let written = gateway.send("PUT", &path, &headers, value.to_string()).await;
            match written.status {
                StatusCode::NO_CONTENT => acknowledged = value,
                StatusCode::CONFLICT => assert!(written.header("ryw-lost").is_some(), "{written:?}"),
                _ => self.failed(&written).await,
            }
            for _ in 0..3 {
                let read = gateway.get(&path, &headers).await;
                if read.header("ryw-lost").is_some() {
                    self.0.told.fetch_add(1, Relaxed);
                    // It knows now; what it reads from here on is what is left.
                    let left = gateway.get(&path, &acknowledge).await;
                    match shown(&left) {
                        Some(shown) => acknowledged = shown,
                        None => self.failed(&left).await,
                    }
                    continue;
                }
                match shown(&read) {
                    None => self.failed(&read).await,
                    Some(shown) => {
                        self.0.reads.fetch_add(1, Relaxed);
                        self.0.by_replicas.fetch_add(u64::from(read.served().by == "replica"), Relaxed);
                        if shown < acknowledged {
                            self.0.wrong.lock().push(format!("{name}: {shown} < {acknowledged}, {:?}", read.headers));
                        }
                    }
                }
                sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Errors are answers as well, if they say so.
    async fn failed(&self, reply: &Reply) {
        self.0.errors.fetch_add(1, Relaxed);
        if !reply.status.is_server_error() {
            self.0.wrong.lock().push(format!("{reply:?}"));
        }
        sleep(Duration::from_millis(20)).await;
    }

    /// Until so many further reads have been served, also by replicas.
    async fn goes_on(&self, what: &str) {
        let (reads, by_replicas) = (self.0.reads.load(Relaxed), self.0.by_replicas.load(Relaxed));
        let (started, deadline) = (Instant::now(), Instant::now() + DEADLINE);
        while self.0.reads.load(Relaxed) < reads + 300 || self.0.by_replicas.load(Relaxed) < by_replicas + 50 {
            assert!(Instant::now() < deadline, "{what}: it does not go on: {:?}", self.0.wrong.lock());
            sleep(Duration::from_millis(10)).await;
        }
        assert!(self.0.wrong.lock().is_empty(), "{what}: {:?}", self.0.wrong.lock());
        let (errors, told) = (self.0.errors.swap(0, Relaxed), self.0.told.swap(0, Relaxed));
        println!("{what}: goes on after {:?}; {errors} errors, {told} told of a loss", started.elapsed());
    }
}

/// The value, 0 for none; nothing for an error.
fn shown(read: &Reply) -> Option<u64> {
    match read.status {
        StatusCode::OK => Some(read.text().parse().unwrap()),
        StatusCode::NOT_FOUND => Some(0),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_less_than_was_acknowledged_without_being_told() {
    let start = || Cluster::builder().standby(Standby::named("a")).standby(Standby::named("b")).start();
    let mut cluster = block_in_place(start).unwrap();
    let urls = [cluster.primary().url(), cluster.standbys()[0].url(), cluster.standbys()[1].url()];
    let arguments = ["--primary", &urls[0], "--replica", &urls[1], "--replica", &urls[2]];
    let gateway = Arc::new(Gateway::start(&arguments).await);
    let load = Load::default();
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        sessions.spawn(load.clone().session(Arc::clone(&gateway), number));
    }
    load.goes_on("at first").await;

    block_in_place(|| cluster.server_mut("b").unwrap().kill()).unwrap();
    load.goes_on("a replica was killed").await;
    block_in_place(|| cluster.server_mut("b").unwrap().start()).unwrap();
    load.goes_on("it is back").await;

    block_in_place(|| cluster.server("a").unwrap().freeze()).unwrap();
    load.goes_on("a replica is frozen").await;
    block_in_place(|| cluster.server("a").unwrap().thaw()).unwrap();
    load.goes_on("it goes on").await;

    block_in_place(|| cluster.primary_mut().kill()).unwrap();
    block_in_place(|| cluster.primary_mut().start()).unwrap();
    load.goes_on("the primary was killed and started again").await;

    block_in_place(|| cluster.primary_mut().kill()).unwrap();
    block_in_place(|| cluster.server("a").unwrap().promote()).unwrap();
    block_in_place(|| cluster.follow("b", "a")).unwrap();
    load.goes_on("a replica was promoted").await;

    block_in_place(|| cluster.rewind("primary", "a")).unwrap();
    load.goes_on("the old primary is a replica").await;

    block_in_place(|| cluster.server_mut("a").unwrap().stop_fast()).unwrap();
    block_in_place(|| cluster.primary().promote()).unwrap();
    block_in_place(|| cluster.follow("b", "primary")).unwrap();
    load.goes_on("and the primary again").await;

    load.0.stop.store(true, Relaxed);
    while let Some(session) = sessions.join_next().await {
        session.unwrap();
    }
    println!("{} reads, {} by replicas", load.0.reads.load(Relaxed), load.0.by_replicas.load(Relaxed));
}
