//! A failover as a script: who has lost something is told, who has not is not, and everybody goes on.

use std::time::Duration;

use axum::http::StatusCode;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_ryw::topology::NodeState;

use crate::{
    failing::{Client, Gate, Replication},
    world::{DEADLINE, Reply, World, until},
};

const SESSIONS: usize = 48;
const TOLD: Option<&str> = Some("?1;epoch=2;was=1");

/// What a session's client is like, and what happens to it.
struct Session {
    client: Client,
    /// It writes what gets nowhere.
    affected: bool,
}

/// All combinations, as often as each other.
fn sessions(world: &World) -> Vec<Session> {
    let session = |number: usize| {
        let (key, level) = (format!("s{number}"), ["RYW", "SESSION"][number / 2 % 2]);
        let client = match number / 4 % 2 {
            0 => Client::named(&world.service, key, level),
            _ => Client::with_token_only(&world.service, key, level),
        };
        Session { client, affected: number.is_multiple_of(2) }
    };
    (0..SESSIONS).map(session).collect()
}

/// A refusal that says what is the matter: by the layer, or by a handler that got no connection.
fn is_typed(reply: &Reply) -> bool {
    matches!(reply.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::CONFLICT)
}

/// Reads until there is an answer. Each until then is a typed error, never a stale read.
async fn first_answer(client: &mut Client, since: Instant) -> (Reply, Duration) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let reply = client.read().await;
        if reply.status.is_success() {
            return (reply, since.elapsed());
        }
        assert!(is_typed(&reply), "{}: {reply:?}", client.key);
        assert!(Instant::now() < deadline, "{}: {reply:?}", client.key);
        sleep(Duration::from_millis(10)).await;
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_has_lost_something_is_told_and_nobody_else() {
    let mut world = World::with_standbys(2).await;
    let mut sessions = sessions(&world);
    for session in &mut sessions {
        session.client.put(1).await;
    }
    let replication = Replication::of(&world, &["r1", "r2"]).await;
    replication.cut();
    for session in sessions.iter_mut().filter(|session| session.affected) {
        // Acknowledged, and on its way for ever.
        let reply = session.client.put(2).await;
        assert_eq!((reply.lost(), session.client.read().await.value()), (None, Some(2)), "{reply:?}");
    }
    world.kill("primary");
    replication.destroy();
    let ordered = Instant::now();
    world.promote("r1");

    // Everybody at once.
    let mut reading = JoinSet::new();
    for mut session in sessions {
        reading.spawn(async move {
            let (reply, after) = first_answer(&mut session.client, ordered).await;
            let told = if session.affected { TOLD } else { None };
            assert_eq!((reply.lost(), reply.value()), (told, Some(1)), "{}: {reply:?}", session.client.key);
            (session, after)
        });
    }
    let (mut sessions, mut times): (Vec<_>, Vec<_>) = reading.join_all().await.into_iter().unzip();
    let told = sessions.iter().filter(|session| session.affected).count();
    println!(
        "{told} of {SESSIONS} sessions were told; first answers after the promotion was ordered: {:?} in the median, {:?} at most",
        percentile(&mut times, 50),
        percentile(&mut times, 100)
    );
    assert_eq!((sessions.len(), told), (SESSIONS, SESSIONS / 2));
    assert!(world.layer.stats().snapshot().lost_told >= told as u64);
    world.follow("r2", "r1");
    world.until_state("r2", NodeState::Replica).await;

    for Session { client, affected } in &mut sessions {
        let told = if *affected { TOLD } else { None };
        // Telling is not enough: the client may not have got the answer.
        let read = client.read().await;
        assert_eq!((read.lost(), read.value()), (told, Some(1)), "{}: {read:?}", client.key);
        let write = client.try_put(3).await;
        let refused = *affected && client.level() == "SESSION";
        let status = if refused { StatusCode::CONFLICT } else { StatusCode::NO_CONTENT };
        assert_eq!((write.status, write.lost()), (status, told), "{}: {write:?}", client.key);
        let value = Some(if refused { 1 } else { 3 });
        let read = client.read().await;
        assert_eq!((read.lost(), read.value()), (told, value), "a later write does not hide it: {read:?}");

        let acknowledged = client.acknowledge().await;
        assert_eq!((acknowledged.lost(), acknowledged.value()), (None, value), "{}: {acknowledged:?}", client.key);
        let write = client.put(4).await;
        let read = client.read().await;
        assert_eq!((write.lost(), read.lost(), read.value()), (None, None, Some(4)), "{}: {read:?}", client.key);
    }

    // The old primary comes back, and serves.
    tokio::task::block_in_place(|| world.cluster.rewind("primary", "r1")).unwrap();
    world.until_state("primary", NodeState::Replica).await;
    until("it serves", async || {
        let read = sessions[0].client.read().await;
        assert_eq!((read.lost(), read.value()), (None, Some(4)), "{read:?}");
        read.node() == Some("primary")
    })
    .await;

    // And takes over again. This time nothing is lost.
    world.replicas_caught_up().await;
    world.kill("r1");
    let ordered = Instant::now();
    world.promote("primary");
    let mut times = Vec::new();
    for Session { client, .. } in &mut sessions {
        let (read, after) = first_answer(client, ordered).await;
        assert_eq!((read.lost(), read.value()), (None, Some(4)), "{}: {read:?}", client.key);
        times.push(after);
    }
    println!("and after the second one: {:?} at most", percentile(&mut times, 100));
    world.until_state("primary", NodeState::Primary).await;
    world.follow("r2", "primary");
    for Session { client, .. } in &mut sessions {
        let (write, read) = (client.put(5).await, client.read().await);
        assert_eq!((write.lost(), read.lost(), read.value()), (None, None, Some(5)), "{}: {read:?}", client.key);
    }
}

/// Its commit was acknowledged to the handler, and then nobody could say where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_is_settled_by_its_own_epoch_and_told_after_it() {
    let gate = Gate::default();
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), gate.routes(), 10);
    let mut world = world.await;
    let mut clients = ["crash", "freeze", "failover"].map(|name| Client::named(&world.service, name, "RYW"));
    for client in &mut clients {
        until("the replica serves", async || client.read().await.served().0 == "replica").await;
        client.put(1).await;
    }

    // The primary crashes, and comes back.
    let [crash, freeze, failover] = &mut clients;
    let writing = gate.send(&world, "after", &crash.key).await;
    world.kill("primary");
    gate.open();
    let written = writing.await.unwrap();
    assert_eq!((written.status, written.lost()), (StatusCode::NO_CONTENT, None), "{written:?}");
    assert_eq!(written.headers["x-consistency-enforced"], "false", "{written:?}");
    for _ in 0..5 {
        let read = crash.read().await;
        assert!(is_typed(&read), "{read:?}");
    }
    world.restart("primary");
    world.until_state("primary", NodeState::Primary).await;
    settles(crash, 2).await;

    // It pauses.
    let writing = gate.send(&world, "after", &freeze.key).await;
    tokio::task::block_in_place(|| world.server("primary").freeze()).unwrap();
    gate.open();
    let written = writing.await.unwrap();
    assert_eq!((written.status, written.lost()), (StatusCode::NO_CONTENT, None), "{written:?}");
    assert_eq!(written.headers["x-consistency-enforced"], "false", "{written:?}");
    tokio::task::block_in_place(|| world.server("primary").thaw()).unwrap();
    world.until_state("primary", NodeState::Primary).await;
    settles(freeze, 2).await;

    // It is replaced.
    world.replicas_caught_up().await;
    let replication = Replication::of(&world, &["r1"]).await;
    replication.cut();
    let writing = gate.send(&world, "after", &failover.key).await;
    world.kill("primary");
    replication.destroy();
    gate.open();
    let written = writing.await.unwrap();
    assert_eq!(written.status, StatusCode::NO_CONTENT, "{written:?}");
    world.promote("r1");
    world.until_state("r1", NodeState::Primary).await;
    let (read, _) = first_answer(failover, Instant::now()).await;
    assert_eq!((read.lost(), read.value()), (TOLD, Some(1)), "{read:?}");
    // Their doubts were over.
    for client in [crash, freeze] {
        let (read, _) = first_answer(client, Instant::now()).await;
        assert_eq!((read.lost(), read.value()), (None, Some(2)), "{read:?}");
    }
}

/// The session sees its write all the time, is told nothing, and gets back to the replica.
async fn settles(client: &mut Client, value: i64) {
    until("the replica serves", async || {
        let read = client.read().await;
        if !read.status.is_success() {
            assert!(is_typed(&read), "{read:?}");
            return false;
        }
        assert_eq!((read.lost(), read.value()), (None, Some(value)), "{read:?}");
        read.served().0 == "replica"
    })
    .await;
}

/// The same, when the new primary does not have it; and when another one answers before the position is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_primary_was_replaced_before_it_was_answered_is_told() {
    let gate = Gate::default();
    let mut world = World::start(Cluster::builder().standby(Standby::named("r1")), gate.routes(), 10).await;
    let mut client = Client::named(&world.service, "me", "RYW");
    client.put(1).await;
    let replication = Replication::of(&world, &["r1"]).await;
    replication.cut();
    let writing = gate.send(&world, "after", "me").await;
    world.lose_the_primary(&replication).await;
    // There is a primary to ask for its position, and it would say that it has everything up to there.
    gate.open();
    let written = writing.await.unwrap();
    assert_eq!((written.status, written.lost()), (StatusCode::NO_CONTENT, TOLD), "{written:?}");
    let read = client.read().await;
    assert_eq!((read.lost(), read.value()), (TOLD, Some(1)), "{read:?}");
}

/// The first one's log goes on where the second one's does, under the same number: nobody could tell their places apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_promotion_to_the_same_timeline_is_fenced() {
    let mut world = World::with_standbys(2).await;
    let mut client = Client::named(&world.service, "me", "SESSION");
    client.put(1).await;
    world.replicas_caught_up().await;
    world.kill("primary");
    world.promote("r1");
    world.until_state("r1", NodeState::Primary).await;
    client.put(2).await;
    world.kill("r1");
    // It has never heard of r1's promotion.
    world.promote("r2");
    world.until_state("r2", NodeState::Fenced).await;
    for reply in [client.read().await, client.try_put(3).await] {
        assert!(is_typed(&reply), "{reply:?}");
    }
    assert_eq!(world.psql("r2", "select value from notes where key = 'me'"), "1", "a chance to be stale");
    // Whoever has lost it is told so by a timeline of its own.
    world.restart("r1");
    world.until_state("r1", NodeState::Primary).await;
    assert_eq!(client.read().await.value(), Some(2));
}
