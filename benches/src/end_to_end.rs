//! Whole servers under load: axum with and without the layer, and a database with and without replicas.

use std::{convert::Infallible, error::Error, net::SocketAddr, thread, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::get,
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ryw_postgres::RywPool;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
    task::JoinSet,
    time::Instant,
};
use tower_ryw::{RywLayer, topology::NodeView};

use crate::report::{Goal, Section, Spread, Table, number};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 16;
/// Requests in flight on one connection, where it takes several.
const STREAMS: usize = 8;
/// Rows in the table that is read.
const ROWS: i64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// A server on a thread of its own, until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(app: Router) -> Outcome<Self> {
        let (started, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.and_then(|listener| {
                    started.send(listener.local_addr()?).map_err(std::io::Error::other)?;
                    Ok(listener)
                });
                let Ok(listener) = listener else { return };
                tokio::select! {
                    _ = stopped => {}
                    _ = axum::serve(listener, app).into_future() => {}
                }
            });
        });
        Ok(Self { address: address.recv()?, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A server that has panicked has failed its requests already.
            let _ = thread.join();
        }
    }
}

/// Answers in one turn, per second.
async fn load(server: &Server, http: Http, session: bool, turn: Duration) -> Outcome<f64> {
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (address, until) = (server.address, started + turn);
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = TokioIo::new(stream);
            let request = move || {
                let request = Request::get(format!("http://bench/{}", fastrand::i64(0..ROWS)));
                let request = request.header("host", "bench").header("user-agent", "bench").header("accept", "*/*");
                let request = if session { request.header("x-session-id", format!("s{number}")) } else { request };
                request.body(Body::empty())
            };
            match http {
                Http::One => {
                    let (mut sender, connection) = http1::handshake(stream).await?;
                    let driver = tokio::spawn(connection);
                    let mut count = 0_u64;
                    while Instant::now() < until {
                        sender.ready().await?;
                        count += answered(sender.send_request(request()?).await?).await?;
                    }
                    drop(sender);
                    driver.await??;
                    Outcome::Ok(count)
                }
                Http::Two => {
                    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                    let driver = tokio::spawn(connection);
                    let mut streams = JoinSet::new();
                    for _ in 0..STREAMS {
                        let mut sender = sender.clone();
                        streams.spawn(async move {
                            let mut count = 0_u64;
                            while Instant::now() < until {
                                sender.ready().await?;
                                count += answered(sender.send_request(request()?).await?).await?;
                            }
                            Outcome::Ok(count)
                        });
                    }
                    drop(sender);
                    let mut count = 0;
                    while let Some(stream) = streams.join_next().await {
                        count += stream??;
                    }
                    driver.await??;
                    Ok(count)
                }
            }
        });
    }
    let mut count = 0;
    while let Some(client) = clients.join_next().await {
        count += client??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

async fn answered(response: http::Response<hyper::body::Incoming>) -> Outcome<u64> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let failed = || format!("answered {status}: {}", String::from_utf8_lossy(&body));
    if status == StatusCode::OK { Ok(1) } else { Err(failed().into()) }
}

fn plain() -> Router {
    Router::new().route("/{id}", get(async || "a note that says as much as notes do"))
}

/// Rates of both, and the second beside the first, turn by turn.
async fn beside(servers: [&Server; 2], http: Http, session: bool, quick: bool) -> Outcome<[Spread; 3]> {
    let (turns, turn) = if quick { (6, Duration::from_millis(200)) } else { (16, Duration::from_millis(500)) };
    let mut rates: [Vec<f64>; 3] = Default::default();
    for number in 0..turns {
        // Whoever goes first does not always go first.
        let (first, second) = if number % 2 == 0 { (0, 1) } else { (1, 0) };
        let mut pair = [0.0; 2];
        for which in [first, second] {
            pair[which] = load(servers[which], http, session, turn).await?;
        }
        rates[0].push(pair[0]);
        rates[1].push(pair[1]);
        rates[2].push(pair[1] / pair[0]);
    }
    Ok(rates.map(Spread::of))
}

async fn read(State(pool): State<RywPool>, Path(id): Path<i64>) -> Result<String, (StatusCode, String)> {
    let failed = |error: &dyn Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let connection = pool.get().await.map_err(|error| failed(&error))?;
    let row = connection.query_one("select body from notes where id = $1", &[&id]).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| failed(&error))
}

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(quick)).map_err(|error| -> Box<dyn Error> { error })
}

async fn measure(quick: bool) -> Outcome<Section> {
    let mut table = Table::new(["axum, requests/s", "without the layer", "with it", "ratio"]);
    let (without, with) = (Server::start(plain())?, Server::start(plain().layer(RywLayer::new()))?);
    let mut worst = f64::INFINITY;
    for (http, session, name) in [
        (Http::One, false, "HTTP/1, no session"),
        (Http::One, true, "HTTP/1, reads of sessions"),
        (Http::Two, false, "HTTP/2, no session"),
        (Http::Two, true, "HTTP/2, reads of sessions"),
    ] {
        let [a, b, ratio] = beside([&without, &with], http, session, quick).await?;
        worst = worst.min(ratio.median);
        table.row([name.into(), a.into(), b.into(), ratio.into()]);
    }
    drop((without, with));
    Ok(Section {
        id: "end_to_end",
        title: "Whole servers",
        text: format!(
            "A server on one thread, {CONNECTIONS} connections of a client on another one that always have a request in flight \
             (HTTP/2: {STREAMS}), in turns. The databases share this machine with both, so replicas add no processors here: \
             what is seen is what following positions costs, not what replicas gain."
        ),
        tables: vec![table, databases(quick).await?],
        goals: vec![Goal {
            what: "axum under load, beside the same server without the layer",
            goal: "≥ 0.98×",
            measured: format!("{}×", number(worst)),
            met: worst >= 0.98,
            why: "a handler that does nothing makes the layer's share as large as it gets",
        }],
        plots: Vec::new(),
    })
}

async fn databases(quick: bool) -> Outcome<Table> {
    let start = || Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2")).start();
    let cluster = tokio::task::spawn_blocking(start).await??;
    let primary = || RywPool::builder().primary(cluster.primary().url()).max_connections(16);
    let replicated = cluster.standbys().iter().fold(primary(), |builder, standby| builder.replica(standby.url()));
    // Each pool lives on the thread of its own server.
    let alone = primary().connect().await?;
    alone
        .primary()
        .await?
        .batch_execute(&format!(
            "create table notes (id bigint primary key, body text not null);
         insert into notes select n, 'note ' || n from generate_series(0, {ROWS}) n"
        ))
        .await?;
    let replicated = replicated.connect().await?;
    let layer = RywLayer::builder().positions(replicated.topology().clone()).build()?;
    // Replicas have the table before they are asked for it.
    let created = alone.topology().sample_primary().await.ok_or("the primary does not answer")?;
    let has_it = |node: &NodeView| node.applied().is_some_and(|applied| applied.offset() >= created.offset());
    let replayed = async {
        while !replicated.topology().view().nodes().iter().all(has_it) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replayed).await?;
    let app = |pool: &RywPool| Router::new().route("/{id}", get(read)).with_state(pool.clone());
    let bare = Server::start(app(&alone))?;
    let of_one = RywLayer::builder().positions(alone.topology().clone()).build()?;
    let layered = Server::start(app(&alone).layer(of_one))?;
    let spread = Server::start(app(&replicated).layer(layer))?;
    let mut table = Table::new(["PostgreSQL, requests/s", "one primary, no layer", "beside it", "ratio"]);
    for (other, name) in [(&layered, "one primary, with the layer"), (&spread, "two replicas, with the layer")] {
        let [a, b, ratio] = beside([&bare, other], Http::One, true, quick).await?;
        table.row([name.into(), a.into(), b.into(), ratio.into()]);
    }
    Ok(table)
}
