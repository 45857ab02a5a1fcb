//! The position in a write's token contains the write, however many writes ask for theirs at a time.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::Request,
    routing::post,
};
use ryw_core::{Tenant, Token};
use ryw_postgres::{RywPool, tokio_postgres};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{sync::OnceCell, task::JoinSet};

use crate::world::{World, upsert};

const TASKS: i64 = 50;
const WRITES: i64 = 4;

/// Another connection than any of the pool's, made when the server is there.
type Witness = Arc<OnceCell<tokio_postgres::Client>>;

/// Answers with how far the log was flushed right after the commit.
async fn write(State(pool): State<RywPool>, Extension(witness): Extension<Witness>, Path(key): Path<String>) -> String {
    upsert(&pool.get().await.unwrap(), &key, 1).await;
    let flushed = "select (pg_current_wal_flush_lsn() - '0/0')::text";
    witness.get().unwrap().query_one(flushed, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_mark_lies_behind_its_commit() {
    let witness = Witness::default();
    let routes = Router::new().route("/capture/{key}", post(write)).layer(Extension(Arc::clone(&witness)));
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 20).await;
    let url = world.cluster.primary().url();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    witness.set(client).unwrap();

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (service, keys) = (world.service.clone(), world.keys.clone());
        tasks.spawn(async move {
            for write in 0..WRITES {
                let request = Request::post(format!("/capture/{task}-{write}")).body(Body::empty()).unwrap();
                let reply = service.send(request).await;
                let committed: u64 = reply.body.parse().unwrap();
                let token = reply.headers["ryw-token"].to_str().unwrap();
                let token = Token::open(&keys, &Tenant::default(), token).unwrap();
                let [mark] = token.marks.positions() else { panic!("{token:?}") };
                assert!(mark.offset() >= committed, "{mark:?} lies before {committed:X}");
                assert!(!token.marks.is_unknown() && !token.marks.is_pending(), "{token:?}");
            }
        });
    }
    assert_eq!(tasks.join_all().await.len(), 50);
}
