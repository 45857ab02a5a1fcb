//! What positions cost, and how fast they are known, on a real PostgreSQL with one standby:
//!
//! * coalescing: readings of the primary per write, at growing rates of writes;
//! * what waiting for its position adds to a write, against the same write without, interleaved;
//! * wake-up: how much later than a client that polls the standby without a pause a waiting read goes on.

use std::{convert::Infallible, error::Error, time::Duration};

use http::{Request, Response};
use ryw_postgres::{RywPool, tokio_postgres};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ryw::{Ladder, Position, RywLayer, topology::NodeView};

use crate::report::{Goal, Section, Table, number};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WRITE: &str = "insert into bench values ($1)";
const RATE_TIME: Duration = Duration::from_secs(4);
const WRITERS: usize = 32;
const PAIRS: usize = 500;
const WAITS: usize = 400;
/// The standby applies so much later, so that reads have to wait.
const APPLY_DELAY: Duration = Duration::from_millis(5);

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sizes = if quick { Sizes { rate_time: RATE_TIME / 4, pairs: PAIRS / 5, waits: WAITS / 5 } } else { FULL };
    runtime.block_on(measure(sizes)).map_err(|error| -> Box<dyn Error> { error })
}

async fn measure(Sizes { rate_time, pairs, waits }: Sizes) -> Outcome<Section> {
    let start = || Cluster::builder().standby(Standby::named("r1").apply_delay(APPLY_DELAY)).start();
    let cluster = tokio::task::spawn_blocking(start).await??;
    let builder = RywPool::builder().primary(cluster.primary().url()).max_connections(32);
    let pool = builder.replica(cluster.standbys()[0].url()).connect().await?;
    pool.primary().await?.batch_execute("create table bench (n bigint)").await?;

    let mut rates = Table::new(["writes/s", "writes made", "readings of the primary", "readings per write"]);
    let mut row = |name: String, (writes, readings): (u64, u64)| {
        let [writes, readings] = [writes, readings].map(|count| count as f64);
        rates.row([name.into(), writes.into(), readings.into(), (readings / writes).into()]);
        readings / writes
    };
    for rate in [1, 100, 1000] {
        row(rate.to_string(), coalescing(&pool, rate, rate_time).await?);
    }
    let most = saturated(&pool, rate_time).await?;
    let per_write = row(format!("{:.0}, by {WRITERS} at a time", most.0 as f64 / rate_time.as_secs_f64()), most);

    let (without, with) = added(&pool, pairs).await?;
    let mut writes = Table::new(["a write, ms", "median", "p99"]);
    for (what, times) in [("alone", &without), ("with its position", &with)] {
        writes.row([what.into(), ms(times, 50).into(), ms(times, 99).into()]);
    }
    let late = wake_up(&pool, &cluster, waits).await?;
    let mut wakes = Table::new(["wake-up after the replay, ms", "median", "p90", "p99", "worst"]);
    let [median, p90, p99, worst] = [50, 90, 99, 100].map(|rank| ms(&late, rank));
    wakes.row([format!("of {} waiting reads", late.len()).into(), median.into(), p90.into(), p99.into(), worst.into()]);
    Ok(Section {
        id: "positions",
        title: "Positions",
        text: format!(
            "PostgreSQL, one standby that applies {} ms late, all on this machine. One reading is in flight at a time; without any \
             write the primary is read 50 times a second.",
            APPLY_DELAY.as_millis()
        ),
        tables: vec![rates, writes, wakes],
        goals: vec![
            Goal {
                what: "positions: readings of the primary per write, under load",
                goal: "≤ 1",
                measured: number(per_write),
                met: per_write <= 1.0,
                why: "",
            },
            Goal {
                what: "wake-up of a waiting read after the replay, p99",
                goal: "≤ 2 ms",
                measured: format!("{} ms", number(p99)),
                met: p99 <= 2.0,
                why: "the watcher, the server and whoever polls it share two processors",
            },
        ],
        plots: Vec::new(),
    })
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    rate_time: Duration,
    pairs: usize,
    waits: usize,
}

const FULL: Sizes = Sizes { rate_time: RATE_TIME, pairs: PAIRS, waits: WAITS };

/// Writes at a steady rate, each of which waits for its position. Returns writes, and readings of the primary.
async fn coalescing(pool: &RywPool, rate: u32, time: Duration) -> Outcome<(u64, u64)> {
    let before = readings(pool);
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (started, mut writes, mut count) = (Instant::now(), JoinSet::new(), 0);
    while started.elapsed() < time {
        ticks.tick().await;
        let pool = pool.clone();
        writes.spawn(async move { write(&pool).await });
        count += 1;
    }
    while let Some(written) = writes.join_next().await {
        written??;
    }
    let after = readings(pool);
    Ok((count, after - before))
}

/// As many writes as go, [`WRITERS`] at a time.
async fn saturated(pool: &RywPool, time: Duration) -> Outcome<(u64, u64)> {
    let before = readings(pool);
    let (started, mut writers) = (Instant::now(), JoinSet::new());
    for _ in 0..WRITERS {
        let pool = pool.clone();
        writers.spawn(async move {
            let mut count = 0;
            while started.elapsed() < time {
                write(&pool).await?;
                count += 1;
            }
            Outcome::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(written) = writers.join_next().await {
        count += written??;
    }
    Ok((count, readings(pool) - before))
}

async fn write(pool: &RywPool) -> Outcome<Position> {
    pool.primary().await?.execute(WRITE, &[&1_i64]).await?;
    Ok(pool.topology().sample_primary().await.ok_or("the primary does not answer")?)
}

fn readings(pool: &RywPool) -> u64 {
    pool.topology().view().primary().map_or(0, NodeView::readings)
}

async fn added(pool: &RywPool, pairs: usize) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let started = Instant::now();
        pool.primary().await?.execute(WRITE, &[&1_i64]).await?;
        without.push(started.elapsed());
        let started = Instant::now();
        write(pool).await?;
        with.push(started.elapsed());
    }
    Ok((without, with))
}

/// How much later than somebody who polls the standby without a pause a waiting read goes on.
async fn wake_up(pool: &RywPool, cluster: &Cluster, waits: usize) -> Outcome<Vec<Duration>> {
    let ladder = Ladder::new().wait(Duration::from_secs(2));
    let layer = RywLayer::builder().positions(pool.topology().clone()).ladder(ladder).build()?;
    let service = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new()))));
    let (client, connection) = tokio_postgres::connect(&cluster.standbys()[0].url(), tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let replayed = client.prepare("select pg_last_wal_replay_lsn()").await?;
    let request = |method: &str| Request::builder().method(method).uri("/").header("x-session-id", "bench").body(());
    let mut late = Vec::new();
    for _ in 0..waits {
        pool.primary().await?.execute(WRITE, &[&1_i64]).await?;
        // The layer samples the position of this "write", which lies behind the one just made.
        service.clone().oneshot(request("PUT")?).await?;
        let position = pool.topology().sample_primary().await.ok_or("the primary does not answer")?;
        let read = tokio::spawn({
            let (service, request) = (service.clone(), request("GET")?);
            async move {
                let response = service.oneshot(request).await;
                (Instant::now(), response)
            }
        });
        let reached = loop {
            let lsn: tokio_postgres::types::PgLsn = client.query_one(&replayed, &[]).await?.try_get(0)?;
            if u64::from(lsn) >= position.offset() {
                break Instant::now();
            }
        };
        let (went_on, response) = read.await?;
        let route = response?.headers().get("ryw-route").cloned();
        if route.is_some_and(|route| route.to_str().is_ok_and(|route| route.contains("reason=waited"))) {
            late.push(went_on.saturating_duration_since(reached));
        }
    }
    drop(client);
    driver.await??;
    Ok(late)
}

fn ms(times: &[Duration], percentile: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percentile).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
