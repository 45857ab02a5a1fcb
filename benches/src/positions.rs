//! What positions cost, and how fast they are known, on a real PostgreSQL with one standby:
//!
//! `cargo run --release -p ryw-bench --bin positions`
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

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WRITE: &str = "insert into bench values ($1)";
const RATE_TIME: Duration = Duration::from_secs(4);
const WRITERS: usize = 32;
const PAIRS: usize = 500;
const WAITS: usize = 400;
/// The standby applies so much later, so that reads have to wait.
const APPLY_DELAY: Duration = Duration::from_millis(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let start = || Cluster::builder().standby(Standby::named("r1").apply_delay(APPLY_DELAY)).start();
    let cluster = tokio::task::spawn_blocking(start).await??;
    let builder = RywPool::builder().primary(cluster.primary().url()).max_connections(32);
    let pool = builder.replica(cluster.standbys()[0].url()).connect().await?;
    pool.primary().await?.batch_execute("create table bench (n bigint)").await?;

    println!(
        "## Positions\n\nPostgreSQL, one standby that applies {} ms late, all on this machine.\n",
        APPLY_DELAY.as_millis()
    );
    println!("| writes/s | writes made | readings of the primary | readings per write |");
    println!("|---:|---:|---:|---:|");
    for rate in [1, 100, 1000] {
        let (writes, readings) = coalescing(&pool, rate).await?;
        println!("| {rate} | {writes} | {readings} | {:.2} |", readings as f64 / writes as f64);
    }
    let (writes, readings) = saturated(&pool).await?;
    let rate = writes / RATE_TIME.as_secs();
    println!("| {rate}, by {WRITERS} at a time | {writes} | {readings} | {:.2} |", readings as f64 / writes as f64);
    println!("\nOne reading is in flight at a time. Without any write the primary is read 50 times a second.\n");

    let (without, with) = added(&pool).await?;
    println!("| a write, ms | median | p99 |\n|---|---:|---:|");
    println!("| alone | {} | {} |", ms(&without, 50), ms(&without, 99));
    println!("| with its position | {} | {} |\n", ms(&with, 50), ms(&with, 99));

    let late = wake_up(&pool, &cluster).await?;
    println!("| wake-up after the replay, ms | median | p90 | p99 | worst |\n|---|---:|---:|---:|---:|");
    println!(
        "| of {} waiting reads | {} | {} | {} | {} |",
        late.len(),
        ms(&late, 50),
        ms(&late, 90),
        ms(&late, 99),
        ms(&late, 100)
    );
    Ok(())
}

/// Writes at a steady rate, each of which waits for its position. Returns writes, and readings of the primary.
async fn coalescing(pool: &RywPool, rate: u32) -> Outcome<(u64, u64)> {
    let before = readings(pool);
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (started, mut writes, mut count) = (Instant::now(), JoinSet::new(), 0);
    while started.elapsed() < RATE_TIME {
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
async fn saturated(pool: &RywPool) -> Outcome<(u64, u64)> {
    let before = readings(pool);
    let (started, mut writers) = (Instant::now(), JoinSet::new());
    for _ in 0..WRITERS {
        let pool = pool.clone();
        writers.spawn(async move {
            let mut count = 0;
            while started.elapsed() < RATE_TIME {
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

async fn added(pool: &RywPool) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
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
async fn wake_up(pool: &RywPool, cluster: &Cluster) -> Outcome<Vec<Duration>> {
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
    for _ in 0..WAITS {
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

fn ms(times: &[Duration], percentile: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percentile).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or_else(|| "–".to_owned(), |time| format!("{:.2}", time.as_secs_f64() * 1000.0))
}
