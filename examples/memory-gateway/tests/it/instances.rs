//! Several instances on one PostgreSQL, and clients that carry neither token nor cookie.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use axum::http::StatusCode;
use parking_lot::Mutex;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    task::{JoinSet, block_in_place},
    time::{Duration, Instant, sleep},
};

use crate::{
    gateway::{Gateway, Reply},
    program::{DEADLINE, command},
};

/// 32 bytes, the same for all instances.
const KEY: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Each request goes to the next one.
#[derive(Clone, Debug)]
pub(crate) struct Instances {
    pub(crate) gateways: Arc<[Gateway]>,
    // Dropped last: the instances still talk to it.
    _cluster: Arc<Cluster>,
}

/// Sessions that write and read until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Arc<Counts>,
    sessions: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    reads: AtomicU64,
    by_replicas: AtomicU64,
    /// Writes whose response promises that everybody knows of them.
    shared: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// What a read shows: 0 before anything was written, `None` where it was refused.
pub(crate) fn shown(read: &Reply) -> Option<u64> {
    match read.status {
        StatusCode::OK => Some(read.text().parse().unwrap()),
        StatusCode::NOT_FOUND => Some(0),
        _ => None,
    }
}

impl Instances {
    /// Their replicas: one that follows at once, one that is 100 ms late.
    pub(crate) async fn start(count: usize, redis: &[String]) -> Self {
        let late = Standby::named("b").apply_delay(Duration::from_millis(100));
        let start = || Cluster::builder().standby(Standby::named("a")).standby(late).start();
        let cluster = block_in_place(start).unwrap();
        let (primary, [a, b]) = (cluster.primary().url(), [0, 1].map(|number| cluster.standbys()[number].url()));
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--primary", &primary, "--replica", &a, "--replica", &b];
        redis.iter().for_each(|url| arguments.extend(["--redis", url]));
        let mut gateways = Vec::new();
        for _ in 0..count {
            let mut command = command(&arguments);
            command.env("RYW_TOKEN_KEY", KEY);
            gateways.push(Gateway::from(command).await);
        }
        Self { gateways: gateways.into(), _cluster: Arc::new(cluster) }
    }

    /// The one that a session's request goes to.
    pub(crate) fn at(&self, turn: usize) -> &Gateway {
        &self.gateways[turn % self.gateways.len()]
    }

    /// Waits until `/v1/health` of all of them says so of the store.
    pub(crate) async fn until_store(&self, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
        let started = Instant::now();
        for gateway in &*self.gateways {
            loop {
                let health: serde_json::Value =
                    serde_json::from_str(&gateway.get("/v1/health", &[]).await.text()).unwrap();
                if is_so(&health["store"]) {
                    break;
                }
                assert!(started.elapsed() < DEADLINE, "in vain until {what}: {health}");
                sleep(Duration::from_millis(10)).await;
            }
        }
        println!("{what}: after {:?}", started.elapsed());
    }

    pub(crate) fn load(&self, sessions: u32) -> Load {
        let counts = Arc::new(Counts::default());
        let session = |number| session(Arc::clone(&counts), self.clone(), number);
        Load { sessions: (0..sessions).map(session).collect(), counts: Arc::clone(&counts) }
    }
}

async fn session(counts: Arc<Counts>, instances: Instances, number: u32) {
    let (path, name) = (format!("/v1/memory/acme/k{number}"), format!("s{number}"));
    let headers = [("x-session-id", &*name), ("x-consistency-level", "RYW")];
    let mut next = (number as usize..).map(|turn| instances.at(turn));
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

impl Load {
    /// Until so many further reads have been served, also by replicas, after further writes that everybody knows of.
    pub(crate) async fn goes_on(&self, what: &str) {
        self.serves(what, [300, 30, 50]).await;
    }

    /// Until so many further reads have been served, by whomever.
    pub(crate) async fn is_served(&self, what: &str) {
        self.serves(what, [300, 0, 0]).await;
    }

    async fn serves(&self, what: &str, more: [u64; 3]) {
        let Counts { reads, by_replicas, shared, wrong, .. } = &*self.counts;
        let all = || [reads, by_replicas, shared].map(|count| count.load(Relaxed));
        let (before, started) = (all(), Instant::now());
        while all().iter().zip(before).zip(more).any(|((now, before), more)| *now < before + more) {
            assert!(started.elapsed() < DEADLINE, "{what}: it does not go on: {before:?} {:?}", all());
            sleep(Duration::from_millis(10)).await;
        }
        let wrong = wrong.lock();
        assert!(wrong.is_empty(), "{what}: {} stale reads, of which the first: {}", wrong.len(), wrong[0]);
        println!("{what}: goes on after {:?}", started.elapsed());
    }

    /// Stops, after which nothing may have been stale.
    pub(crate) async fn stop(self) {
        self.counts.stop.store(true, Relaxed);
        self.sessions.join_all().await;
        let Counts { reads, by_replicas, wrong, .. } = &*self.counts;
        let wrong = wrong.lock();
        assert!(wrong.is_empty(), "{}", wrong[0]);
        println!("{} reads, {} by replicas", reads.load(Relaxed), by_replicas.load(Relaxed));
    }
}
