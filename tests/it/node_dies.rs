//! A replica that dies costs some reads a moment, and none of them its freshness; when it is back, it serves again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    task::{JoinSet, block_in_place},
    time::{Instant, sleep, timeout},
};

use crate::world::{Reply, Service, World, until};

const SESSIONS: usize = 6;
/// After a node's death, and for how long reads may fail.
const GRACE: Duration = Duration::from_secs(3);
const BACK: Duration = Duration::from_secs(10);

/// Sessions that write and read until they are told to stop.
#[derive(Clone, Default)]
struct Load {
    reads: Arc<Mutex<Vec<Reply>>>,
    stale: Arc<Mutex<Vec<(i64, Reply)>>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(&self, service: &Service) -> JoinSet<()> {
        let mut sessions = JoinSet::new();
        for number in 0..SESSIONS {
            sessions.spawn(self.clone().session(service.clone(), format!("s{number}")));
        }
        sessions
    }

    async fn session(self, service: Service, name: String) {
        for value in 1.. {
            if self.stop.load(Relaxed) {
                return;
            }
            service.put(&name, &name, value).await;
            for _ in 0..3 {
                let read = service.read(&name, &name).await;
                if !read.status.is_server_error() && read.value() != Some(value) {
                    self.stale.lock().push((value, read.clone()));
                }
                self.reads.lock().push(read);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Reads that are made from now on.
    async fn next(&self, count: usize) -> Vec<Reply> {
        self.reads.lock().clear();
        until("reads are made", async || self.reads.lock().len() >= count).await;
        assert!(self.stale.lock().is_empty(), "stale: {:?}", self.stale.lock());
        self.reads.lock().clone()
    }

    async fn until_served_by(&self, node: &str) {
        let served = async || self.next(20).await.iter().any(|read| read.node() == Some(node));
        until(&format!("{node} serves"), served).await;
    }
}

fn assert_served(reads: &[Reply]) {
    let failed: Vec<_> = reads.iter().filter(|read| read.status != StatusCode::OK).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), reads.len(), failed[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_elsewhere_and_come_back() {
    let mut world = World::with_standbys(2).await;
    let load = Load::default();
    let sessions = load.start(&world.service);
    load.until_served_by("r1").await;
    load.until_served_by("r2").await;

    block_in_place(|| world.cluster.server_mut("r1").unwrap().kill()).unwrap();
    sleep(GRACE).await;
    let reads = load.next(300).await;
    assert_served(&reads);
    assert!(reads.iter().all(|read| read.node() != Some("r1")), "the dead can't serve");
    assert!(reads.iter().any(|read| read.node() == Some("r2")), "the other one does");

    block_in_place(|| world.cluster.server_mut("r2").unwrap().kill()).unwrap();
    sleep(GRACE).await;
    let reads = load.next(300).await;
    assert_served(&reads);
    assert!(reads.iter().all(|read| read.served() == ("primary", "no-replica")), "{:?}", reads[0]);

    block_in_place(|| {
        world.cluster.server_mut("r1").unwrap().start().unwrap();
        world.cluster.server_mut("r2").unwrap().start().unwrap();
    });
    let since = Instant::now();
    for node in ["r1", "r2"] {
        let left = BACK.saturating_sub(since.elapsed());
        timeout(left, load.until_served_by(node)).await.unwrap_or_else(|_| panic!("{node} does not serve again"));
    }
    assert_served(&load.next(100).await);

    load.stop.store(true, Relaxed);
    assert_eq!(sessions.join_all().await.len(), SESSIONS);
    load.next(0).await;
}
