//! Nobody knows what became of a write: until it can't commit any more, its session stays where it would be seen.

use std::{pin::pin, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Path, Request as AxumRequest, State},
    http::{Request, StatusCode},
    middleware::{Next, from_fn},
    response::Response,
    routing::put,
};
use futures_util::stream;
use ryw_postgres::{RywConnection, RywPool};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tower_ryw::{RywContext, topology::NodeState};

use crate::world::{World, at_once, select, until, upsert};

/// Longer than the window for which a session is held at least.
const SLOW: &str = "select pg_sleep(3.5); \
                    insert into notes values ('me', 2) on conflict (key) do update set value = excluded.value";

async fn start(routes: Router<RywPool>) -> World {
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await;
    until("the replica serves", async || world.service.read("me", "me").await.served().0 == "replica").await;
    world.service.put("me", "me", 1).await;
    until("the replica serves", async || world.service.read("me", "me").await.served().0 == "replica").await;
    world
}

/// Asked over a connection of its own: one of the pool's may be the one that is busy.
fn is_running(world: &World) -> bool {
    let slow = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'";
    world.server("primary").psql(slow).unwrap() == "1"
}

fn committed(world: &World) -> Option<i64> {
    world.server("primary").psql("select value from notes where key = 'me'").unwrap().parse().ok()
}

/// The statement commits later than the window lasts. All the time its session reads from the primary, so it sees the
/// write from the moment on when there is one; then it returns to the replica.
async fn is_held_until_it_commits(world: &World) {
    assert!(is_running(world), "it is too late to see anything");
    world.pause_replay().await;
    let (since, mut held) = (Instant::now(), Duration::ZERO);
    until("the statement has committed", async || {
        let committed = committed(world);
        let read = world.service.read("me", "me").await;
        assert_eq!(read.served().0, "primary", "after {:?}: {read:?}", since.elapsed());
        assert!(read.value() >= committed, "{committed:?} is committed after {:?}: {read:?}", since.elapsed());
        held = since.elapsed();
        committed == Some(2)
    })
    .await;
    assert!(held > Duration::from_millis(2200), "that was within the window: {held:?}");
    until("the hold is over", async || {
        let read = world.service.read("me", "me").await;
        assert_eq!((read.value(), read.served().0), (Some(2), "primary"), "{read:?}");
        read.served().1 == "behind"
    })
    .await;
    world.resume_replay();
    until("the replica serves again", async || {
        let read = world.service.read("me", "me").await;
        assert_eq!(read.value(), Some(2), "{read:?}");
        read.served().0 == "replica"
    })
    .await;
}

async fn write_slowly(State(pool): State<RywPool>) -> StatusCode {
    let client = pool.get().await.unwrap();
    client.batch_execute(SLOW).await.unwrap();
    StatusCode::NO_CONTENT
}

fn slow_request() -> Request<Body> {
    Request::put("/slow").header("x-session-id", "me").body(Body::empty()).unwrap()
}

/// The client leaves as soon as the statement runs.
async fn send_and_leave(world: &World) {
    tokio::select! {
        reply = world.service.send(slow_request()) => panic!("{reply:?}"),
        () = until("the statement runs", async || is_running(world)) => {}
    }
}

#[tokio::test]
async fn f10_a_statement_that_outlives_its_dropped_request_is_waited_for() {
    let world = start(Router::new().route("/slow", put(write_slowly))).await;
    send_and_leave(&world).await;
    is_held_until_it_commits(&world).await;
}

/// However many there are: one connection asks for all of them.
#[tokio::test]
async fn many_statements_that_were_given_up_are_followed_together() {
    let world = start(Router::new().route("/slow", put(give_up))).await;
    let given_up = at_once(8, || {
        let service = world.service.clone();
        async move { service.send(slow_request()).await.status }
    });
    let followers = || {
        let name = "tower-ryw follower";
        let count = format!("select count(*) from pg_stat_activity where application_name = '{name}'");
        world.server("primary").psql(&count).unwrap().parse::<usize>().unwrap()
    };
    let (mut most, mut seen) = (0, 0);
    let mut serving = pin!(given_up);
    let statuses = loop {
        match timeout(Duration::from_millis(20), &mut serving).await {
            Ok(statuses) => break statuses,
            Err(_) => most = followers().max(most),
        }
    };
    assert_eq!(statuses, [StatusCode::GATEWAY_TIMEOUT; 8]);
    until("nothing is followed any more", async || {
        let now = followers();
        (most, seen) = (most.max(now), seen + now);
        seen > 0 && now == 0
    })
    .await;
    assert_eq!(most, 1);
    assert_eq!(committed(&world), Some(2), "and not before all is over");
}

async fn write_for_ever(State(pool): State<RywPool>) -> StatusCode {
    pool.get().await.unwrap().batch_execute("select pg_sleep(1000)").await.unwrap();
    StatusCode::NO_CONTENT
}

/// It takes as long as a connection may go on with what it was doing: half a minute.
#[tokio::test]
async fn f10_a_connection_that_does_not_finish_is_closed() {
    let routes = Router::new().route("/slow", put(write_for_ever));
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 1).await;
    send_and_leave(&world).await;
    sleep(Duration::from_secs(31)).await;
    assert!(is_running(&world), "a chance to wait behind it");
    let client = timeout(Duration::from_secs(5), world.pool.primary()).await.expect("in time").unwrap();
    timeout(Duration::from_secs(5), client.simple_query("select 1")).await.expect("it has nothing else to do").unwrap();
}

/// Gives up on the statement, which goes on over a connection that goes back to the pool.
async fn give_up(State(pool): State<RywPool>) -> StatusCode {
    let client = pool.get().await.unwrap();
    match timeout(Duration::from_millis(200), client.batch_execute(SLOW)).await {
        Ok(done) => done.map(|()| StatusCode::NO_CONTENT).unwrap(),
        Err(_) => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The connection that has something to do. Kept, so that nobody else waits for it.
async fn busy_connection(world: &World) -> RywConnection {
    let mut others = Vec::new();
    loop {
        let client = world.pool.primary().await.unwrap();
        if timeout(Duration::from_millis(100), client.simple_query("")).await.is_err() {
            return client;
        }
        others.push(client);
    }
}

#[tokio::test]
async fn f11_a_statement_that_its_handler_gave_up_is_waited_for() {
    let world = start(Router::new().route("/slow", put(give_up))).await;
    let reply = world.service.send(slow_request()).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{reply:?}");
    let _busy = busy_connection(&world).await;
    is_held_until_it_commits(&world).await;
}

#[tokio::test]
async fn f14_the_loser_of_two_equal_writes_is_waited_for() {
    let world = start(Router::new().route("/slow", put(write_slowly))).await;
    // A client that is in a hurry sends its request again, and leaves the first one when the second is answered.
    tokio::select! {
        reply = world.service.send(slow_request()) => panic!("{reply:?}"),
        () = async {
            until("the statement runs", async || is_running(&world)).await;
            world.service.put("me", "me", 1).await;
        } => {}
    }
    is_held_until_it_commits(&world).await;
}

/// It never commits where anybody could see it, and nobody is left who could be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_what_a_dead_primary_was_doing_is_over_when_there_is_another() {
    let routes = Router::new().route("/slow", put(write_slowly));
    let cluster = Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2"));
    let mut world = World::start(cluster, routes, 10).await;
    world.service.put("me", "me", 1).await;
    world.caught_up().await;
    send_and_leave(&world).await;
    world.kill("primary");
    world.promote("r1");
    world.follow("r2", "r1");
    for (node, state) in [("r1", NodeState::Primary), ("r2", NodeState::Replica)] {
        world.until_state(node, state).await;
    }
    let since = Instant::now();
    until("a replica serves the session again", async || {
        let read = world.service.read("me", "me").await;
        assert_eq!((read.value(), read.lost()), (Some(1), None), "{read:?}");
        read.served().0 == "replica"
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(10), "the window is 2 s: {:?}", since.elapsed());
}

/// How a request ends after its commit.
#[derive(Clone, Copy, Debug)]
enum End {
    Status(u16),
    Never,
    Panic,
}

async fn commit_and(State(pool): State<RywPool>, Path((key, end)): Path<(String, String)>) -> StatusCode {
    {
        let client = pool.get().await.unwrap();
        upsert(&client, &key, 2).await;
    }
    match end.as_str() {
        "never" => std::future::pending().await,
        "panic" => panic!("on purpose, after the commit"),
        status => StatusCode::from_u16(status.parse().unwrap()).unwrap(),
    }
}

/// An answer for those who panic: on a task of their own, as servers do.
async fn catch_panic(request: AxumRequest, next: Next) -> Result<Response, StatusCode> {
    let context = RywContext::current().unwrap();
    tokio::spawn(context.scope(next.run(request))).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn is_held(world: &World, session: &str) {
    let read = world.service.read(session, session).await;
    assert_eq!((read.value(), read.served()), (Some(2), ("primary", "pending-write")), "{read:?}");
}

/// First it was held, then it has a mark.
async fn is_marked(world: &World, session: &str) {
    until("the hold is over", async || {
        let read = world.service.read(session, session).await;
        assert_eq!((read.value(), read.served().0), (Some(2), "primary"), "{read:?}");
        read.served().1 == "behind"
    })
    .await;
}

async fn check_ends(routes: Router<RywPool>, ends: &[End]) {
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await;
    let session = |end: &End| format!("{end:?}").to_lowercase().replace(['(', ')'], "-");
    for end in ends {
        until("the replica serves", async || world.service.read(&session(end), "none").await.served().0 == "replica")
            .await;
        world.service.put(&session(end), &session(end), 1).await;
    }
    world.pause_replay().await;
    for end in ends {
        let name = session(end);
        let last = match end {
            End::Status(status) => status.to_string(),
            End::Never => "never".into(),
            End::Panic => "panic".into(),
        };
        let request = Request::put(format!("/{name}/then/{last}")).header("x-session-id", &name);
        let (service, request) = (world.service.clone(), request.body(Body::empty()).unwrap());
        let serving = tokio::spawn(async move { service.send(request).await });
        until("it is committed", async || {
            let client = world.pool.primary().await.unwrap();
            select(&client, &name).await.unwrap() == Some(2)
        })
        .await;
        match end {
            // A timeout around the layer.
            End::Never => {
                serving.abort();
                assert!(serving.await.is_err());
            }
            _ => drop(serving.await),
        }
        is_held(&world, &name).await;
    }
    for end in ends {
        is_marked(&world, &session(end)).await;
    }
}

#[tokio::test]
async fn f11_a_failure_or_a_timeout_after_the_commit_leaves_a_mark() {
    let routes = Router::new().route("/{key}/then/{end}", put(commit_and));
    check_ends(routes, &[End::Status(500), End::Status(503), End::Status(504), End::Status(408), End::Never]).await;
}

#[tokio::test]
async fn f12_a_panic_after_the_commit_leaves_a_mark() {
    // Caught outside of the layer, by the task.
    let routes = Router::new().route("/{key}/then/{end}", put(commit_and));
    check_ends(routes.clone(), &[End::Panic]).await;
    // Caught inside of it.
    check_ends(routes.layer(from_fn(catch_panic)), &[End::Panic]).await;
}

/// Writes when its headers have left.
async fn stream_and_write(
    context: RywContext,
    State(pool): State<RywPool>,
    Extension(go): Extension<&'static Notify>,
    Path(key): Path<String>,
) -> Body {
    let writing = async move {
        go.notified().await;
        let Some(context) = RywContext::current() else { panic!("no context") };
        context.mark_written();
        let client = pool.primary().await.unwrap();
        upsert(&client, &key, 2).await;
        drop(client);
        context.mark_written();
        Ok::<_, std::convert::Infallible>(Bytes::from_static(b"written"))
    };
    Body::from_stream(stream::once(context.scope(writing)))
}

#[tokio::test]
async fn f13_a_write_in_a_streamed_body_is_seen_by_the_next_read() {
    let go: &'static Notify = Box::leak(Box::default());
    let routes = Router::new().route("/stream/{key}", axum::routing::get(stream_and_write)).layer(Extension(go));
    let world = start(routes).await;
    world.pause_replay().await;
    let request = Request::get("/stream/me").header("x-session-id", "me").body(Body::empty()).unwrap();
    // `send` reads the body to its end; nothing is written before it is allowed to.
    let (service, mut streaming) = (world.service.clone(), Box::pin(world.service.send(request)));
    assert!(timeout(Duration::from_millis(50), &mut streaming).await.is_err(), "the body can't have ended");
    let before = service.read("me", "me").await;
    assert_eq!((before.value(), before.served().0), (Some(1), "replica"), "{before:?}");
    go.notify_one();
    assert_eq!(streaming.await.body, "written");
    is_held(&world, "me").await;
    is_marked(&world, "me").await;
}
