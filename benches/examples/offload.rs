//! The simulation behind [`ryw_bench::offload`], on a clock that does not wait: `cargo run -p ryw-bench --example offload`.
//!
//! Sessions read and write over a primary with two replicas that lag; each read is sent somewhere by tower-ryw with positions,
//! by a window of 2 s or by one of 60 s. An oracle knows afterwards which of the reads a replica could have served.

use std::{convert::Infallible, env, error::Error, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use ryw_bench::offload::{Cell, LAGS_MS, PATIENCE, WRITE_SHARES};
use ryw_testing::lagging::LaggingStore;
use std::sync::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ryw::{Ladder, RywContext, RywLayer};

const SESSIONS: u64 = 16;
/// Longest pause between two requests of a session.
const MAX_PAUSE_MS: u64 = 100;

type Timelines = Arc<[Mutex<Vec<(Instant, u64)>>]>;

/// What became of the reads.
#[derive(Default)]
struct Seen {
    reads: u64,
    by_replicas: u64,
    possible: u64,
    stale: u64,
}

/// One read that the oracle is asked about later.
struct Read {
    at: Instant,
    /// The session's last write.
    mark: u64,
    by_replica: bool,
    stale: bool,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let seconds = env::args().nth(1).map_or(Ok(120), |seconds| seconds.parse())?;
    let mut cells = Vec::new();
    for lag_ms in LAGS_MS {
        for percent in WRITE_SHARES {
            cells.push(cell(lag_ms, percent, Duration::from_secs(seconds))?);
        }
    }
    println!("{}", serde_json::to_string(&cells)?);
    Ok(())
}

fn cell(lag_ms: u64, percent: u64, duration: Duration) -> Result<Cell, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let lag = Duration::from_millis(lag_ms);
        let [positions, short, long] =
            [None, Some(2), Some(60)].map(|window| contender(lag, window, percent, duration));
        let (positions, short, long) = (positions.await?, short.await?, long.await?);
        let share = |seen: &Seen| seen.by_replicas as f64 / seen.reads.max(1) as f64;
        Ok(Cell {
            lag_ms,
            write_percent: percent,
            reads: positions.reads,
            oracle: positions.possible as f64 / positions.reads.max(1) as f64,
            positions: share(&positions),
            window_2s: share(&short),
            window_60s: share(&long),
            stale: [positions.stale, short.stale, long.stale],
        })
    })
}

async fn contender(
    lag: Duration,
    window: Option<u64>,
    percent: u64,
    duration: Duration,
) -> Result<Seen, Box<dyn Error + Send + Sync>> {
    let store = LaggingStore::builder().replicas(2).lag(lag).start();
    let timelines: Timelines = (0..2).map(|_| Mutex::default()).collect();
    for (index, name) in ["r1", "r2"].into_iter().enumerate() {
        let timelines = Arc::clone(&timelines);
        store.on_apply(&name.into(), move |offset| {
            if let Ok(mut timeline) = timelines[index].lock() {
                timeline.push((Instant::now(), offset));
            }
        });
    }
    let builder = RywLayer::builder().primary_budget(usize::MAX);
    let layer = match window {
        Some(seconds) => builder.window(Duration::from_secs(seconds)),
        None => builder.positions(store.topology().clone()).ladder(Ladder::new().wait(PATIENCE)),
    };
    let served = store.clone();
    let handler =
        service_fn(move |request: Request<Body>| std::future::ready(Ok::<_, Infallible>(serve(&served, &request))));
    let service = layer.build()?.layer(handler);
    let end = Instant::now() + duration;
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        sessions.spawn(session(service.clone(), number, percent, end));
    }
    let mut reads = Vec::new();
    while let Some(session) = sessions.join_next().await {
        reads.extend(session??);
    }
    // Whoever waited at the end is judged too.
    tokio::time::sleep(2 * lag).await;
    let reached = |timeline: &[(Instant, u64)], mark: u64, by: Instant| {
        let first = timeline.partition_point(|(_, offset)| *offset < mark);
        mark == 0 || timeline.get(first).is_some_and(|(at, _)| *at <= by)
    };
    let mut seen = Seen::default();
    for Read { at, mark, by_replica, stale } in reads {
        let possible = timelines
            .iter()
            .any(|timeline| timeline.lock().is_ok_and(|timeline| reached(&timeline, mark, at + PATIENCE)));
        seen.reads += 1;
        seen.by_replicas += u64::from(by_replica);
        seen.possible += u64::from(possible);
        seen.stale += u64::from(stale);
    }
    Ok(seen)
}

fn serve(store: &LaggingStore, request: &Request<Body>) -> Response<Body> {
    let name = request.uri().path();
    let Some(ryw) = RywContext::current() else { return Response::new(Body::empty()) };
    if request.method() == Method::GET {
        return Response::new(store.get(&ryw.route(), "t", name).unwrap_or_default().into());
    }
    let value = request.headers().get("x-value").map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let mut response = Response::new(Body::empty());
    match store.put("t", name, value) {
        Ok(position) => {
            // A sample taken after it may be of somebody else's write, which costs the session's next reads a little.
            ryw.mark_written_at(position);
            response.headers_mut().insert("x-offset", position.offset().into());
        }
        Err(_) => *response.status_mut() = http::StatusCode::INSUFFICIENT_STORAGE,
    }
    response
}

async fn session<S>(
    service: S,
    number: u64,
    percent: u64,
    end: Instant,
) -> Result<Vec<Read>, Box<dyn Error + Send + Sync>>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let mut pick = fastrand::Rng::with_seed(number);
    let (mut reads, mut mark, mut value) = (Vec::new(), 0, 0_u64);
    let name = format!("s{number}");
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(pick.u64(..=MAX_PAUSE_MS))).await;
        let request = Request::builder().uri(format!("/{name}")).header("x-session-id", &name);
        if pick.u64(..100) < percent {
            value += 1;
            let request = request.method(Method::PUT).header("x-value", value).body(Body::empty())?;
            let response = service.clone().oneshot(request).await?;
            let offset = response.headers().get("x-offset").ok_or("a write has failed")?;
            mark = offset.to_str()?.parse()?;
            continue;
        }
        let at = Instant::now();
        let response = service.clone().oneshot(request.body(Body::empty())?).await?;
        let route = response.headers().get("ryw-route").ok_or("a read has failed")?.to_str()?.to_owned();
        let body = axum::body::to_bytes(response.into_body(), 64).await?;
        let found: u64 = if body.is_empty() { 0 } else { std::str::from_utf8(&body)?.parse()? };
        reads.push(Read { at, mark, by_replica: route.starts_with("replica"), stale: found < value });
    }
    Ok(reads)
}
