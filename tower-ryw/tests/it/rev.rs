//! Review.
use std::{sync::Arc, time::Duration};

use axum::routing::any;
use ryw_core::{ClusterId, Epoch, Keyring, Marks, Position, Subject, SubjectKey, Tenant, Token};
use tokio::{sync::Barrier, time::sleep};
use tower_ryw::{Ladder, NodeName, Route, RywContext};

use crate::{
    cluster::{Client, Cluster, at, primary},
    harness::{level, session},
};

const ME: (&str, &str) = session("me");

#[tokio::test(start_paused = true)]
async fn rev_a_stale_read_is_not_admitted_on_a_foreign_server() {
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
async fn rev_without_holds_its_place_in_the_budget() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().primary_budget(1).build().unwrap();
    let barrier = Arc::new(Barrier::new(10));
    let handler = {
        let barrier = Arc::clone(&barrier);
        any(move |context: RywContext| async move {
            let elsewhere = context.without(&[NodeName::from("r1"), NodeName::from("r2")]);
            let _ = tokio::time::timeout(Duration::from_secs(1), barrier.wait()).await;
            if matches!(elsewhere, Some((Route::Primary, _))) { "primary" } else { "none" }
        })
    };
    let client = Arc::new(Client::with(&layer, handler));
    for r in ["r1", "r2"] {
        cluster.set(r, crate::cluster::replica(1, 100)).await;
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

#[tokio::test(start_paused = true)]
async fn rev_one_device_does_not_acknowledge_for_the_other() {
    let cluster = Cluster::start().await;
    let user = |_: tower_ryw::RequestHead<'_>| vec![Subject::user("1").unwrap()];
    let layer = cluster.layer().subjects(user).build().unwrap();
    let client = Client::of(&layer);
    let (a, b) = (session("a"), session("b"));
    client.get(&[a]).await;
    client.get(&[b]).await;
    client.post(&[a]).await;
    cluster.fail_over().await;
    let told = |answer: &crate::harness::Answer| answer.header("ryw-lost").map(str::to_owned);
    let ack = client.get(&[a, ("ryw-lost", "ack")]).await;
    let first_of_b = client.get(&[b]).await;
    assert!(told(&first_of_b).is_some(), "the other device was never told: {ack:?} {first_of_b:?}");
}

#[tokio::test(start_paused = true)]
async fn rev_a_loss_without_any_replica_is_not_called_enforced() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let client = Client::of(&layer);
    client.get(&[ME]).await;
    client.post(&[ME]).await;
    cluster.fail_over().await;
    cluster.down("r2").await;
    let read = client.get(&[ME]).await;
    eprintln!("{read:?}");
    assert!(read.header("ryw-lost").is_some());
    assert_eq!(read.header("x-consistency-enforced"), Some("false"));
}

#[tokio::test(start_paused = true)]
async fn rev_a_token_of_a_newer_epoch() {
    let cluster = Cluster::start().await;
    let keys = Keyring::random().unwrap();
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let client = Client::of(&layer);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = Token { session: SubjectKey::from_bytes([1; 16]), issued_at: now as u32, marks: Marks::at(at(2, 130)) };
    let token = token.seal(&keys, &Tenant::default());
    for name in ["RYW", "SESSION"] {
        let read = client.get(&[("ryw-token", &token), level(name)]).await;
        eprintln!("{name} {} {:?} {:?}", read.status, read.header("x-consistency-enforced"), read.header("ryw-route"));
        assert!(read.status.is_server_error() || read.header("x-consistency-enforced") == Some("false"), "{read:?}");
    }
    sleep(Duration::ZERO).await;
}
