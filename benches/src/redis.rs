//! What shared marks cost, on a real Redis:
//!
//! `cargo run --release -p ryw-bench --bin redis`
//!
//! * round trips: commands that the server has run per read and per write of one session;
//! * throughput of reads at 64 in flight beside raw `GET`s of a value of the same size over one connection, and over a pool of as
//!   many connections as the store has, taking turns;
//! * bytes per marked session.

use std::{error::Error, sync::Arc, time::Duration};

use ryw_redis::{
    RedisStore, bb8,
    redis::{self, aio::MultiplexedConnection},
};
use ryw_testing::servers::redis::RedisServer;
use tokio::{task::JoinSet, time::Instant};
use tower_ryw::{ClusterId, Epoch, MarkStore, Marks, Position, SubjectKey, Update};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const IN_FLIGHT: usize = 64;
const TURN: Duration = Duration::from_millis(500);
const TURNS: usize = 12;
const SESSIONS: usize = 98_304;

fn random_key() -> SubjectKey {
    SubjectKey::from_bytes(fastrand::u128(..).to_le_bytes())
}

fn at(offset: u64) -> Update {
    Update { marks: Marks::at(Position::new(ClusterId::new(1), Epoch::new(1), offset)), hold: None }
}

/// As long as an entry's.
fn raw_key(number: usize) -> String {
    format!("raw{number:011}")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let server = Arc::new(tokio::task::spawn_blocking(|| RedisServer::builder().start()).await??);
    let store = RedisStore::connect(server.url()).await?;
    println!("## Shared marks\n\nOne Redis, on this machine.\n");

    let used = |server: &RedisServer| -> Outcome<u64> { Ok(server.info("used_memory")?.parse()?) };
    let mut keys = Vec::new();
    let mut before = 0;
    while keys.len() < SESSIONS {
        if keys.len() == 4096 {
            before = used(&server)?;
        }
        let batch: Vec<_> = std::iter::repeat_with(random_key).take(512).collect();
        store.join(&batch, &at(0x1_6B37_4D48)).await?;
        keys.extend(batch);
    }
    let each = (used(&server)? - before) as f64 / (SESSIONS - 4096) as f64;
    println!("bytes per marked session: {each:.0}\n");

    println!("| one session | commands sent | round trips |\n|---|---:|---:|");
    for what in ["a read", "a write"] {
        server.cli(&["CONFIG", "RESETSTAT"])?;
        for key in &keys[..1000] {
            match what {
                "a read" => drop(store.load(&[*key]).await?),
                _ => store.join(&[*key], &at(7)).await?,
            }
        }
        // Those of scripts are not sent. The store looks at the server once a second besides.
        let calls = |command: &str| -> Outcome<u64> {
            let line = server.cli(&["INFO", "commandstats"])?;
            let line = line
                .lines()
                .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")))
                .map(str::to_owned);
            Ok(line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0))
        };
        let sent = match what {
            "a read" => {
                ["getex", "get", "mget", "exists", "multi", "exec"].map(calls).into_iter().sum::<Outcome<u64>>()?
            }
            _ => calls("evalsha")?,
        };
        println!("| {what} | {:.2} | 1 |", sent as f64 / 1000.0);
    }

    let client = redis::Client::open(server.url())?;
    let raw = client.get_multiplexed_async_connection().await?;
    // As many keys as there are sessions, so that neither side has the others in its processor's cache.
    for first in (0..SESSIONS).step_by(512) {
        let mut sets = redis::Pipeline::new();
        for number in first..first + 512 {
            sets.set(raw_key(number), &[7_u8; 25][..]);
        }
        sets.exec_async(&mut raw.clone()).await?;
    }
    let keys: Arc<[SubjectKey]> = keys.into();
    let pool = bb8::Pool::builder().max_size(4).test_on_check_out(false).build(Connections(client)).await?;
    let mut reached = [0; 3];
    for _ in 0..TURNS {
        let raw = raw.clone();
        reached[0] += in_flight(move || get(raw.clone())).await;
        let pool = pool.clone();
        reached[1] += in_flight(move || {
            let pool = pool.clone();
            async move {
                let Ok(raw) = pool.get().await.map(|raw| raw.clone()) else { return false };
                get(raw).await
            }
        })
        .await;
        let (store, keys) = (store.clone(), Arc::clone(&keys));
        reached[2] += in_flight(move || {
            let (store, key) = (store.clone(), keys[fastrand::usize(..keys.len())]);
            async move { store.load(&[key]).await.is_ok() }
        })
        .await;
    }
    println!("\n| {IN_FLIGHT} in flight | per second | marks beside it |\n|---|---:|---:|");
    for (what, count) in
        ["raw GET, one connection", "raw GET, pool of four", "marks of a session"].into_iter().zip(reached)
    {
        let rate = (count as f64 / (TURN.as_secs_f64() * TURNS as f64)) as u64;
        println!("| {what} | {rate} | {:.2} |", reached[2] as f64 / count as f64);
    }
    Ok(())
}

async fn get(mut raw: MultiplexedConnection) -> bool {
    redis::cmd("GET").arg(raw_key(fastrand::usize(..SESSIONS))).query_async::<Vec<u8>>(&mut raw).await.is_ok()
}

/// As the store's pool has them.
struct Connections(redis::Client);

impl bb8::ManageConnection for Connections {
    type Connection = MultiplexedConnection;
    type Error = redis::RedisError;

    async fn connect(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        self.0.get_multiplexed_async_connection().await
    }

    async fn is_valid(&self, _: &mut MultiplexedConnection) -> Result<(), redis::RedisError> {
        Ok(())
    }

    fn has_broken(&self, _: &mut MultiplexedConnection) -> bool {
        false
    }
}

/// How many were answered in one turn.
async fn in_flight<F>(one: impl Fn() -> F + Clone + Send + 'static) -> u64
where
    F: Future<Output = bool> + Send + 'static,
{
    let until = Instant::now() + TURN;
    let mut tasks = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let one = one.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                count += u64::from(one().await);
            }
            count
        });
    }
    tasks.join_all().await.into_iter().sum()
}
