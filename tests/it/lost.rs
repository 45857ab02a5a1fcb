//! What a failover takes from a session is never served silently: its client is told, until it says that it knows.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use ryw_core::{Tenant, Token};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tower_ryw::topology::NodeState;

use crate::{
    failing::{Client, Gate, Replication},
    world::{Reply, World, until},
};

const TOLD: &str = "?1;epoch=2;was=1";
const ANONYMOUS_READS: usize = 200;

/// A read of nobody in particular.
async fn anonymous(world: &World, key: &str, level: &str) -> Reply {
    let request = Request::get(format!("/notes/{key}")).header("x-consistency-level", level);
    world.service.send(request.body(Body::empty()).unwrap()).await
}

/// The offset of the write in its token.
fn written_at(world: &World, client: &Client) -> u64 {
    let token = Token::open(&world.keys, &Tenant::default(), client.token.as_ref().unwrap()).unwrap();
    token.marks.positions().iter().map(|position| position.offset()).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f22_a_lost_write_is_told_although_the_log_has_passed_its_place() {
    let mut world = World::with_standbys(2).await;
    let mut named = Client::named(&world.service, "named", "RYW");
    let mut token_only = Client::with_token_only(&world.service, "token", "RYW");
    for client in [&mut named, &mut token_only] {
        client.put(1).await;
    }
    let replication = Replication::of(&world, &["r1", "r2"]).await;
    replication.cut();
    let mut lost_at = 0;
    for client in [&mut named, &mut token_only] {
        client.put(2).await;
        lost_at = lost_at.max(written_at(&world, client));
    }
    world.kill("primary");
    replication.destroy();
    world.promote("r1");
    world.follow("r2", "r1");
    world.until_state("r1", NodeState::Primary).await;

    // One row is not always enough: promotion itself writes, but so did the primary.
    until("the new log has passed the place of the lost writes", async || {
        world.service.put("other", "other", 1).await;
        world.psql("r1", "select (pg_current_wal_lsn() - '0/0')::text").parse::<u64>().unwrap() > lost_at
    })
    .await;
    world.until_state("r2", NodeState::Replica).await;
    world.replicas_caught_up().await;

    let other_instance = world.another_instance();
    let elsewhere = token_only.moves_to(&other_instance);
    for mut client in [named, token_only, elsewhere] {
        // Sticky, until it is acknowledged.
        for _ in 0..3 {
            let read = client.read().await;
            assert_eq!((read.lost(), read.value()), (Some(TOLD), Some(1)), "{} {read:?}", client.key);
            assert_eq!(read.served().0, "primary", "{read:?}");
            assert_eq!(read.headers["x-consistency-enforced"], "false", "{read:?}");
        }
        let read = client.acknowledge().await;
        assert_eq!((read.lost(), read.value()), (None, Some(1)), "{} {read:?}", client.key);
        for _ in 0..3 {
            let read = client.read().await;
            assert_eq!((read.lost(), read.value()), (None, Some(1)), "{} {read:?}", client.key);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_a_standby_ahead_of_the_fork_serves_nobody() {
    let mut world = World::with_standbys(2).await;
    let mut client = Client::named(&world.service, "me", "RYW");
    client.put(1).await;
    let replication = Replication::of(&world, &["r1"]).await;
    replication.cut();
    client.put(2).await;
    until("the other standby shows the write", async || {
        world.psql("r2", "select value from notes where key = 'me'") == "2"
    })
    .await;
    world.lose_the_primary(&replication).await;
    // The temptation: it answers, and shows what nobody else has.
    world.until_state("r2", NodeState::Fenced).await;
    assert_eq!(world.psql("r2", "select value from notes where key = 'me'"), "2");

    for read in 0..ANONYMOUS_READS {
        let level = ["EVENTUAL", "RYW", "BOUNDED;max=60000"][read % 3];
        let read = anonymous(&world, "me", level).await;
        assert_eq!(read.value(), Some(1), "{level} {read:?}");
        assert_eq!(world.state("r2"), NodeState::Fenced);
    }
    let read = client.read().await;
    assert_eq!((read.lost(), read.value()), (Some(TOLD), Some(1)), "{read:?}");
}

/// The connection was taken from the primary when it was that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_a_write_on_a_demoted_primary_is_told_to_be_lost() {
    let gate = Gate::default();
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), gate.routes(), 10).await;
    let mut client = Client::named(&world.service, "me", "RYW");
    client.put(1).await;
    world.caught_up().await;

    let slow = gate.send(&world, "before", "me").await;
    world.promote("r1");
    world.until_state("r1", NodeState::Primary).await;
    // Nobody has told it, and it goes on.
    world.until_state("primary", NodeState::Fenced).await;
    gate.open();
    let written = slow.await.unwrap();
    assert_eq!(written.status, StatusCode::NO_CONTENT, "{written:?}");
    assert_eq!(written.lost(), Some(TOLD), "{written:?}");
    assert_eq!(world.psql("primary", "select value from notes where key = 'me'"), "2");

    let read = client.read().await;
    assert_eq!((read.lost(), read.value()), (Some(TOLD), Some(1)), "{read:?}");
    // Whoever writes from now on writes on the new one, through a pool whose connections to the old one are good.
    for number in 0..20 {
        world.service.put("other", "other", number).await;
        let read = anonymous(&world, "other", "EVENTUAL").await;
        assert_eq!((read.value(), read.lost()), (Some(number), None), "{read:?}");
        assert_eq!(world.state("primary"), NodeState::Fenced);
    }
    assert_eq!(world.psql("r1", "select value from notes where key = 'other'"), "19");
    assert_eq!(world.psql("primary", "select count(*) from notes where key = 'other'"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_does_not_follow_what_was_lost_while_it_came_in() {
    let gate = Gate::default();
    let mut world = World::start(Cluster::builder().standby(Standby::named("r1")), gate.routes(), 10).await;
    let mut client = Client::named(&world.service, "me", "SESSION");
    client.put(1).await;
    world.caught_up().await;
    let replication = Replication::of(&world, &["r1"]).await;
    replication.cut();
    client.put(3).await;
    // Its place in the order has been looked at already, and its body takes its time.
    let writing = gate.send_at("SESSION", &world, "early", "me").await;
    world.lose_the_primary(&replication).await;
    gate.open();
    let written = writing.await.unwrap();
    assert_eq!((written.status, written.lost()), (StatusCode::BAD_GATEWAY, Some("?1;epoch=2;was=1")), "{written:?}");
    assert_eq!(
        world.psql("r1", "select value from notes where key = 'me'"),
        "1",
        "it would have followed what is gone"
    );
}
