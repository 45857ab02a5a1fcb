//! Sessions that write and read through failures: whatever a read shows of less than was acknowledged, it tells.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use axum::http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Duration, sleep},
};
use tower_ryw::topology::NodeState;

use crate::{
    failing::{Client, Replication},
    world::{Reply, World, until},
};

const SESSIONS: usize = 12;
const ROUND: usize = 600;

/// What all sessions have met.
#[derive(Clone, Default)]
struct Seen(Arc<Counts>);

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    reads: AtomicUsize,
    failed: AtomicUsize,
    told: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    fn wrong(&self, client: &Client, expected: i64, reply: &Reply) {
        self.0.wrong.lock().push(format!("{} knows of {expected}: {reply:?}", client.key));
    }

    /// Reads that are answered from now on.
    async fn next(&self, count: usize) {
        let before = self.0.reads.load(Relaxed);
        until("reads are answered", async || self.0.reads.load(Relaxed) >= before + count).await;
        let wrong = self.0.wrong.lock();
        assert!(wrong.is_empty(), "{} wrong answers, of which the first: {}", wrong.len(), wrong[0]);
    }

    fn told(&self) -> usize {
        self.0.told.load(Relaxed)
    }
}

fn shown(reply: &Reply) -> Option<i64> {
    matches!(reply.status, StatusCode::OK | StatusCode::NOT_FOUND).then(|| reply.value().unwrap_or(0))
}

fn is_error(reply: &Reply) -> bool {
    reply.status.is_server_error() || reply.status == StatusCode::CONFLICT
}

/// Says that it knows, until it is heard; returns what is there now.
async fn acknowledge(client: &mut Client) -> i64 {
    loop {
        let reply = client.acknowledge().await;
        match shown(&reply) {
            Some(value) if reply.lost().is_none() => return value,
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn session(seen: Seen, mut client: Client) {
    let mut acknowledged = 0;
    for value in 1.. {
        if seen.0.stop.load(Relaxed) {
            return;
        }
        let reply = client.try_put(value).await;
        match reply.status {
            StatusCode::NO_CONTENT => acknowledged = value,
            _ if is_error(&reply) => drop(seen.0.failed.fetch_add(1, Relaxed)),
            _ => seen.wrong(&client, acknowledged, &reply),
        }
        if reply.lost().is_some() {
            seen.0.told.fetch_add(1, Relaxed);
            acknowledged = acknowledge(&mut client).await;
        }
        for _ in 0..3 {
            let reply = client.read().await;
            if reply.lost().is_some() {
                seen.0.told.fetch_add(1, Relaxed);
                acknowledged = acknowledge(&mut client).await;
                continue;
            }
            match shown(&reply) {
                Some(value) if value >= acknowledged => drop(seen.0.reads.fetch_add(1, Relaxed)),
                None if is_error(&reply) => drop(seen.0.failed.fetch_add(1, Relaxed)),
                _ => seen.wrong(&client, acknowledged, &reply),
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_and_nothing_rolled_back_is_served_silently() {
    let mut world = World::with_standbys(2).await;
    let replication = Replication::of(&world, &["r1", "r2"]).await;
    // Some commits are always on their way, so a failover takes them.
    replication.delay(Duration::from_millis(30));
    let seen = Seen::default();
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        let (key, level) = (format!("s{number}"), ["RYW", "SESSION"][number % 2]);
        let client = match number / 2 % 2 {
            0 => Client::named(&world.service, key, level),
            _ => Client::with_token_only(&world.service, key, level),
        };
        sessions.spawn(session(seen.clone(), client));
    }
    seen.next(ROUND).await;
    assert_eq!(seen.told(), 0, "nothing has failed yet");

    // kill -9 and a failover. What is written without replication is lost.
    replication.destroy();
    seen.next(ROUND / 10).await;
    world.kill("primary");
    let received = |standby: &str| {
        world.psql(standby, "select (pg_last_wal_receive_lsn() - '0/0')::bigint").parse::<u64>().unwrap()
    };
    // Who has most, as those do who decide in earnest.
    let (next, other) = if received("r1") >= received("r2") { ("r1", "r2") } else { ("r2", "r1") };
    world.promote(next);
    world.follow(other, next);
    world.until_state(next, NodeState::Primary).await;
    world.until_state(other, NodeState::Replica).await;
    seen.next(ROUND).await;
    let told = seen.told();
    assert!(told > 0, "nobody has lost anything: there was nothing to see");

    // kill -9 of the new one, which comes back.
    world.kill(next);
    world.restart(next);
    world.until_state(next, NodeState::Primary).await;
    seen.next(ROUND).await;
    assert_eq!(seen.told(), told, "a crash loses nothing that was acknowledged");

    // The old one comes back.
    tokio::task::block_in_place(|| world.cluster.rewind("primary", next)).unwrap();
    world.until_state("primary", NodeState::Replica).await;
    seen.next(ROUND).await;
    assert_eq!(seen.told(), told);

    seen.0.stop.store(true, Relaxed);
    assert_eq!(sessions.join_all().await.len(), SESSIONS);
    let (reads, failed) = (seen.0.reads.load(Relaxed), seen.0.failed.load(Relaxed));
    println!("{reads} reads were right, {told} losses were told, {failed} requests failed");
}
