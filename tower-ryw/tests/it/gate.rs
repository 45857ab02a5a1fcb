//! What a data layer may do with a request, once it knows which server is at hand.

use std::{sync::Arc, time::Duration};

use axum::routing::any;
use ryw_core::{ClusterId, Epoch, Position};
use tokio::{sync::Barrier, time::timeout};
use tower_ryw::{Ladder, NodeName, Route, RywContext};

use crate::{
    cluster::{Client, Cluster, at, primary, replica},
    harness::session,
};

const ME: (&str, &str) = session("me");

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_admitted_within_its_bound_only() {
    let cluster = Cluster::start().await;
    cluster.set("p", primary(1, 80)).await;
    let ladder = Ladder::new().wait(Duration::ZERO).primary(false).stale(Duration::from_secs(5));
    let layer = cluster.layer().ladder(ladder).build().unwrap();
    let handler = any(|context: RywContext| async move {
        let foreign = Position::new(ClusterId::new(99), Epoch::new(7), 1);
        let ancient = at(1, 1);
        format!("{} {} {:?}", context.admits(foreign), context.admits(ancient), context.route())
    });
    let client = Client::with(&layer, handler);
    client.get(&[ME]).await;
    cluster.set("p", primary(1, 100)).await;
    client.post(&[ME]).await;
    let read = client.send("GET", "/it", &[ME]).await;
    assert_eq!(&read.body[..11], "false false", "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn reads_that_a_failed_replica_sends_to_the_primary_pass_the_budget() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().primary_budget(1).build().unwrap();
    let barrier = Arc::new(Barrier::new(10));
    let handler = {
        let barrier = Arc::clone(&barrier);
        any(move |context: RywContext| async move {
            let elsewhere = context.without(&[NodeName::from("r1"), NodeName::from("r2")]);
            let _ = timeout(Duration::from_secs(1), barrier.wait()).await;
            if matches!(elsewhere, Some((Route::Primary, _))) { "primary" } else { "none" }
        })
    };
    let client = Arc::new(Client::with(&layer, handler));
    for r in ["r1", "r2"] {
        cluster.set(r, replica(1, 100)).await;
    }
    client.get(&[ME]).await;
    let all: Vec<_> = (0..10)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.send("GET", "/it", &[ME]).await.body })
        })
        .collect();
    let mut on_primary = 0;
    for one in all {
        on_primary += usize::from(one.await.unwrap() == "primary");
    }
    assert!(on_primary <= 1, "{on_primary} at once, and the budget is 1");
}
