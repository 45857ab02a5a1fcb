//! The pool follows the request it is asked in.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use ryw_postgres::RywPool;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::time::{Instant, timeout};
use tower_ryw::RywContext;

use crate::world::{World, until, upsert};

async fn start(routes: Router<RywPool>) -> World {
    World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await
}

async fn is_standby(client: &ryw_postgres::RywConnection) -> bool {
    client.query_one("select pg_is_in_recovery()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn outside_of_any_request_it_is_the_primary() {
    let world = start(Router::new()).await;
    for _ in 0..20 {
        let client = world.pool.get().await.unwrap();
        assert_eq!((client.node().as_str(), is_standby(&client).await), ("primary", false));
    }
    let client = world.pool.replica().await.unwrap();
    assert_eq!((client.node().as_str(), is_standby(&client).await), ("r1", true));
}

/// A GET that writes all the same.
async fn visit(State(pool): State<RywPool>, Path(key): Path<String>) -> StatusCode {
    upsert(&pool.primary().await.unwrap(), &key, 1).await;
    StatusCode::OK
}

#[tokio::test]
async fn who_takes_the_primary_has_written() {
    let world = start(Router::new().route("/visit/{key}", get(visit))).await;
    // Seen before, so that it is not held to what the primary has because it is unknown.
    world.service.read("me", "page").await;
    world.pause_replay().await;
    let visited = world.service.get("me", "/visit/page", "RYW").await;
    assert!(visited.headers.contains_key("ryw-token"), "{visited:?}");
    let read = world.service.read("me", "page").await;
    assert_eq!((read.value(), read.served()), (Some(1), ("primary", "behind")), "{read:?}");
}

/// The nodes of this task, of a task that keeps the context, and of one that does not.
async fn nodes(State(pool): State<RywPool>, context: RywContext) -> Json<[String; 3]> {
    let node = |pool: RywPool| async move { pool.get().await.unwrap().node().to_string() };
    let own = node(pool.clone()).await;
    let kept = context.spawn(node(pool.clone())).await.unwrap();
    let lost = tokio::spawn(node(pool)).await.unwrap();
    Json([own, kept, lost])
}

#[tokio::test]
async fn tasks_follow_the_route_if_they_keep_the_context() {
    let world = start(Router::new().route("/nodes", get(nodes))).await;
    until("the replica serves", async || {
        let reply = world.service.get("me", "/nodes", "RYW").await;
        let by_replica = reply.served().0 == "replica";
        let own = if by_replica { "r1" } else { "primary" };
        assert_eq!(reply.body, format!(r#"["{own}","{own}","primary"]"#), "{reply:?}");
        by_replica
    })
    .await;
    let reply = world.service.get("me", "/nodes", "STRONG").await;
    assert_eq!(reply.body, r#"["primary","primary","primary"]"#, "{reply:?}");
}

const FOR_EVER: &str = "select pg_sleep(1000)";

async fn read_for_ever(State(pool): State<RywPool>) -> StatusCode {
    pool.get().await.unwrap().batch_execute(FOR_EVER).await.unwrap();
    StatusCode::OK
}

/// Gives up on a statement of the pool's own, and takes another connection.
async fn give_up_and_read(State(pool): State<RywPool>) -> Result<String, StatusCode> {
    if timeout(Duration::from_millis(200), pool.query(FOR_EVER, &[])).await.is_ok() {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    client.simple_query("").await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(client.node().to_string())
}

#[tokio::test]
async fn nobody_waits_behind_a_read_that_was_cut_short() {
    let routes = Router::new().route("/for-ever", get(read_for_ever)).route("/give-up", get(give_up_and_read));
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 1).await;
    world.service.put("other", "note", 1).await;
    world.caught_up().await;
    let served_by_replica = async |what| {
        let since = Instant::now();
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.node()), (Some(1), Some("r1")), "{what}: {read:?}");
        assert!(since.elapsed() < Duration::from_secs(2), "{what}: {:?}", since.elapsed());
    };
    until("the replica serves", async || world.service.read("me", "note").await.node() == Some("r1")).await;
    let running = || {
        let busy = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'";
        world.standby().psql(busy).unwrap()
    };
    for _ in 0..3 {
        tokio::select! {
            reply = world.service.get("me", "/for-ever", "RYW") => panic!("{reply:?}"),
            () = until("the statement runs", async || running() == "1") => {}
        }
        served_by_replica("its client has left").await;
    }
    let given_up = world.service.get("me", "/give-up", "RYW").await;
    assert_eq!((given_up.status, given_up.body.as_str()), (StatusCode::OK, "r1"));
    served_by_replica("its handler has given up").await;
    until("nothing goes on", async || running() == "0").await;
}
