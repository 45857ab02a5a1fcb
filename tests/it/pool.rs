//! The pool follows the request it is asked in.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use ryw_postgres::RywPool;
use ryw_testing::servers::postgres::{Cluster, Standby};
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
