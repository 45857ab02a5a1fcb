//! Where a write's mark is taken: after its commit, where its commit is, and before its response.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    routing::{get, put},
};
use ryw_core::{Tenant, Token};
use ryw_postgres::{Capture, RywPool};
use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::postgres::{Cluster, ClusterBuilder, Standby},
};
use tokio::time::sleep;
use tower_ryw::{RywContext, topology::NodeState};

use crate::{
    failing::Gate,
    world::{Reply, World, shown, until, upsert},
};

fn one_standby() -> ClusterBuilder {
    Cluster::builder().standby(Standby::named("r1"))
}

/// So that a session's first read is not held to what the primary has because nothing is known of it.
async fn seen(world: &World, session: &str) {
    until("the replica serves the session", async || world.service.read(session, "none").await.served().0 == "replica")
        .await;
}

#[tokio::test]
async fn f01_the_position_is_taken_after_the_commit() {
    let gate = Gate::default();
    let world = World::start(one_standby(), gate.routes(), 10).await;
    for session in ["s0", "s1", "s2"] {
        world.service.put(session, session, 1).await;
        seen(&world, session).await;
        let writing = gate.send(&world, "within", session).await;
        // Somebody else's commit flushes what has been written so far, and the replica applies it.
        world.service.put("other", "other", 1).await;
        world.pause_replay().await;
        gate.open();
        assert_eq!(writing.await.unwrap().status, StatusCode::NO_CONTENT);
        for _ in 0..20 {
            let read = world.service.read(session, session).await;
            assert_eq!((read.value(), read.served()), (Some(2), ("primary", "behind")), "{read:?}");
        }
        world.resume_replay();
    }
}

/// Commits without waiting for the disk, whatever the role's setting.
async fn write_unflushed(State(pool): State<RywPool>, Path((key, value)): Path<(String, i64)>) -> StatusCode {
    let mut client = pool.get().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("set local synchronous_commit = off").await.unwrap();
    upsert(transaction.client(), &key, value).await;
    transaction.commit().await.unwrap();
    StatusCode::NO_CONTENT
}

/// Nothing is flushed unless somebody waits for it.
fn lazy_writer() -> ClusterBuilder {
    one_standby().primary_setting("wal_writer_delay", "1s").primary_setting("wal_writer_flush_after", "1GB")
}

/// How many reads right after a write saw a replica that does not have the write.
async fn write_and_read(world: &World, path: &str, writes: i64) -> usize {
    seen(world, "me").await;
    let mut tempted = 0;
    for value in 1..=writes {
        let request = Request::put(format!("/{path}/me/{value}")).header("x-session-id", "me");
        let reply = world.service.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{reply:?}");
        let read = world.service.read("me", "me").await;
        assert_eq!(read.value(), Some(value), "{read:?}");
        tempted += usize::from(read.served() == ("primary", "behind"));
    }
    tempted
}

async fn write_plainly(State(pool): State<RywPool>, Path((key, value)): Path<(String, i64)>) -> StatusCode {
    upsert(&pool.get().await.unwrap(), &key, value).await;
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn f02_a_session_that_does_not_wait_for_the_disk_is_marked_where_it_inserts() {
    let routes = Router::new().route("/unflushed/{key}/{value}", put(write_unflushed));
    let capture = |_: &Cluster, pool: ryw_postgres::Builder| pool.capture(Capture::Insert);
    let world = World::start_with(lazy_writer(), routes, capture, |layer| layer).await;
    assert_eq!(world.server("primary").psql("show synchronous_commit").unwrap(), "on");
    let tempted = write_and_read(&world, "unflushed", 200).await;
    assert!(tempted > 100, "only {tempted} of 200 reads could have been stale");
}

#[tokio::test]
async fn f02_a_role_that_does_not_wait_for_the_disk_is_noticed() {
    let routes = Router::new().route("/plain/{key}/{value}", put(write_plainly));
    let role = |cluster: &Cluster, pool| {
        cluster.primary().psql("alter role ryw set synchronous_commit = off").unwrap();
        pool
    };
    let world = World::start_with(lazy_writer(), routes, role, |layer| layer).await;
    let tempted = write_and_read(&world, "plain", 200).await;
    assert!(tempted > 100, "only {tempted} of 200 reads could have been stale");
}

const PAGE: u64 = 8192;
/// Before it, a page has nothing but its header.
const HEADER: u64 = 24;

/// Writes so many bytes into the log and commits. Answers with where the log has been, and is now.
async fn pad(State(pool): State<RywPool>, Path(bytes): Path<i32>) -> String {
    const INSERTED: &str = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let client = pool.get().await.unwrap();
    let inserted = async || client.query_one(INSERTED, &[]).await.unwrap().get::<_, i64>(0);
    let before = inserted().await;
    let emit = "select pg_logical_emit_message(true, 'p', repeat('x', $1))";
    client.query_one(emit, &[&bytes]).await.unwrap();
    format!("{before} {}", inserted().await)
}

async fn padded(world: &World, bytes: u64) -> (Reply, u64, u64) {
    let request = Request::put(format!("/pad/{bytes}")).header("x-session-id", "me").body(Body::empty()).unwrap();
    let reply = world.service.send(request).await;
    let (before, after) = reply.body.split_once(' ').unwrap();
    let (before, after) = (before.parse().unwrap(), after.parse().unwrap());
    (reply, before, after)
}

#[tokio::test]
async fn f03_a_commit_that_ends_a_page_does_not_wait_for_the_next_one() {
    const HITS: usize = 5;
    let routes = Router::new().route("/pad/{bytes}", put(pad));
    let quiet = one_standby().setting("autovacuum", "off");
    let capture = |_: &Cluster, pool: ryw_postgres::Builder| pool.capture(Capture::Insert);
    let world = World::start_with(quiet, routes, capture, |layer| layer).await;
    let mut hits = 0;
    for attempt in 0.. {
        assert!(attempt < 100, "only {hits} commits have ended a page");
        // What a commit takes besides its padding, without a page's header in between.
        let (_, before, after) = padded(&world, 1000).await;
        if before / PAGE != after / PAGE {
            continue;
        }
        let (fixed, left) = (after - before - 1000, PAGE - after % PAGE);
        let Some(bytes) = left.checked_sub(fixed).filter(|bytes| *bytes > 300) else { continue };
        let (reply, _, after) = padded(&world, bytes).await;
        if after % PAGE != HEADER {
            continue;
        }
        let token = Token::open(&world.keys, &Tenant::default(), reply.headers["ryw-token"].to_str().unwrap()).unwrap();
        let mark = token.marks.positions()[0].offset();
        let mut read = world.service.read("me", "none").await;
        let mut late = 0;
        while read.served().0 != "replica" && late < 400 {
            sleep(Duration::from_millis(5)).await;
            (read, late) = (world.service.read("me", "none").await, late + 1);
        }
        let end = world.server("primary").psql("select (pg_current_wal_insert_lsn() - '0/0')::bigint").unwrap();
        if end != after.to_string() {
            // The server has written something of its own meanwhile.
            continue;
        }
        assert_eq!(mark, after - HEADER, "the header of the next page is not part of the commit");
        assert_eq!(read.served().0, "replica", "the log ends at {after}: {read:?}");
        hits += 1;
        if hits == HITS {
            return;
        }
    }
}

/// A GET that writes, over a connection that does not know of its request.
async fn count_view(context: RywContext, State(pool): State<RywPool>, Path(key): Path<String>) -> StatusCode {
    context.mark_written();
    tokio::spawn(async move { upsert(&pool.get().await.unwrap(), &key, 2).await }).await.unwrap();
    StatusCode::OK
}

#[tokio::test]
async fn f08_a_get_that_says_that_it_writes_is_marked() {
    let world = World::start(one_standby(), Router::new().route("/view/{key}", get(count_view)), 10).await;
    world.service.put("me", "page", 1).await;
    seen(&world, "me").await;
    world.pause_replay().await;
    let viewed = world.service.get("me", "/view/page", "RYW").await;
    assert!(viewed.headers.contains_key("ryw-token"), "{viewed:?}");
    let read = world.service.read("me", "page").await;
    assert_eq!((read.value(), read.served()), (Some(2), ("primary", "behind")), "{read:?}");
}

#[tokio::test]
async fn f09_the_mark_is_there_before_the_response() {
    const FAR: Duration = Duration::from_millis(50);
    let proxy = Proxy::start(["127.0.0.1:1".parse::<std::net::SocketAddr>().unwrap()]).await.unwrap();
    let through_proxy = |cluster: &Cluster, pool: ryw_postgres::Builder| {
        proxy.retarget([("127.0.0.1", cluster.primary().port())]);
        pool.primary(format!("postgres://ryw@{}/postgres", proxy.address()))
    };
    let world = World::start_with(one_standby(), Router::new(), through_proxy, |layer| layer).await;
    for session in ["s0", "s1", "s2"] {
        seen(&world, session).await;
        world.service.put(session, session, 1).await;
        seen(&world, session).await;
    }
    world.pause_replay().await;
    // The position comes long after the commit's answer.
    proxy.delay(Direction::ToClient, FAR);
    world.until_state("primary", NodeState::Primary).await;
    for session in ["s0", "s1", "s2"] {
        world.service.put(session, session, 2).await;
        let read = world.service.read(session, session).await;
        assert_eq!((read.value(), read.served()), (Some(2), ("primary", "behind")), "{read:?}");
    }
}

#[tokio::test]
async fn f07_a_write_after_the_response_is_seen() {
    let gate = Gate::default();
    let world = World::start(one_standby(), gate.routes(), 10).await;
    world.service.put("me", "me", 1).await;
    until("the replica serves", async || world.service.read("me", "me").await.served().0 == "replica").await;
    let answered = gate.send(&world, "later", "me").await.await.unwrap();
    assert_eq!(answered.status, StatusCode::NO_CONTENT, "{answered:?}");
    world.pause_replay().await;
    gate.open();
    gate.reached().await;
    assert_eq!(shown(world.standby(), "me"), Some(1), "a chance to be stale");
    for _ in 0..10 {
        let read = world.service.read("me", "me").await;
        assert_eq!((read.value(), read.served().0), (Some(2), "primary"), "{read:?}");
    }
    gate.open();
}
