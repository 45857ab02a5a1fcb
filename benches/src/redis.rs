//! What shared marks cost, on a real Redis:
//!
//! * round trips: how often something arrived at the server per read and per write of one session;
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

use crate::report::{Cell, Goal, Section, Spread, Table, number};

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

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(if quick { 3 } else { TURNS })).map_err(|error| -> Box<dyn Error> { error })
}

async fn measure(turns: usize) -> Outcome<Section> {
    let server = Arc::new(tokio::task::spawn_blocking(|| RedisServer::builder().start()).await??);
    let store = RedisStore::connect(server.url()).await?;
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
    let mut trips = Table::new(["one session", "round trips"]);
    let mut most = 0.0_f64;
    // How often the server has found something to read: a pipeline counts once. The store looks at it once a second besides.
    let arrivals = |server: &RedisServer| -> Outcome<u64> { Ok(server.info("total_reads_processed")?.parse()?) };
    for what in ["a read", "a write"] {
        let before = arrivals(&server)?;
        for key in &keys[..1000] {
            match what {
                "a read" => drop(store.load(&[*key]).await?),
                _ => store.join(&[*key], &at(7)).await?,
            }
        }
        let each = (arrivals(&server)? - before) as f64 / 1000.0;
        most = most.max(each);
        trips.row([what.into(), Cell::Number(each)]);
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
    let mut reached: [Vec<f64>; 3] = Default::default();
    let per_second = |count: u64| count as f64 / TURN.as_secs_f64();
    for _ in 0..turns {
        let raw = raw.clone();
        let count = in_flight(move || get(raw.clone())).await;
        reached[0].push(per_second(count));
        let pool = pool.clone();
        let count = in_flight(move || {
            let pool = pool.clone();
            async move {
                let Ok(raw) = pool.get().await.map(|raw| raw.clone()) else { return false };
                get(raw).await
            }
        })
        .await;
        reached[1].push(per_second(count));
        let (store, keys) = (store.clone(), Arc::clone(&keys));
        let count = in_flight(move || {
            let (store, key) = (store.clone(), keys[fastrand::usize(..keys.len())]);
            async move { store.load(&[key]).await.is_ok() }
        })
        .await;
        reached[2].push(per_second(count));
    }
    let ratio = |to: usize| Spread::of(reached[2].iter().zip(&reached[to]).map(|(marks, raw)| marks / raw).collect());
    let mut rates = Table::new(["64 in flight", "per second", "marks beside it"]);
    let beside = [ratio(0).into(), ratio(1).into(), Cell::Number(1.0)];
    let names = ["raw GET, one connection", "raw GET, pool of four", "marks of a session"];
    for ((what, rates_of), beside) in names.into_iter().zip(reached.clone()).zip(beside) {
        rates.row([what.into(), Spread::of(rates_of).into(), beside]);
    }
    let pooled = ratio(1).median;
    Ok(Section {
        id: "redis",
        title: "Shared marks",
        text: format!(
            "One Redis, on this machine, {each:.0} bytes of its memory per marked session. A read that carries a token asks nobody."
        ),
        tables: vec![trips, rates],
        goals: vec![
            Goal {
                what: "Redis: round trips of a read, of a write",
                goal: "1",
                measured: format!("{} at most", number(most)),
                met: most <= 1.05,
                why: "",
            },
            Goal {
                what: "Redis: reads, beside raw GET through such a pool",
                goal: "≥ 0.9×",
                measured: format!("{}×", number(pooled)),
                met: pooled >= 0.9,
                why: "reads that arrive together go as one command, which the machine had no room for",
            },
        ],
        plots: Vec::new(),
    })
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
