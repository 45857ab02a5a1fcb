//! Waiting for a replica, and what follows when it does not help.

use std::time::Duration;

use tower::ServiceExt;
use tower_ryw::{
    Ladder, RequestHead,
    topology::{NodeState, WaitLimits},
};

use crate::{
    cluster::{Client, Cluster, replica},
    harness::{LAG, answer, request, session, with_positions},
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_read_waits_until_the_replica_has_it() {
    let fixture = with_positions(|b| b.ladder(Ladder::new().wait(2 * SECOND))).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!(read.body, "1");
    assert!(read.route().starts_with("replica;node=\"r1\";reason=waited;level=ryw;waited="), "{}", read.route());
    let waited: u64 = read.route().rsplit('=').next().unwrap().parse().unwrap();
    assert!((499..=1501).contains(&waited), "the replica's lag, and no more: {waited}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_limit() {
    // Half of the shortest lag: a try that can't succeed but may look as if it could.
    let fixture = with_positions(|b| b.ladder(Ladder::new().wait(LAG / 4))).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let started = tokio::time::Instant::now();
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!(read.body, "1");
    assert!(read.route().starts_with("primary;reason=behind"), "{}", read.route());
    assert!(started.elapsed() <= LAG / 4 + Duration::from_millis(5), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leaving_makes_room_among_the_waiting() {
    let fixture = with_positions(|b| b.ladder(Ladder::new().wait(2 * SECOND))).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let waiting = fixture.app.clone().oneshot(request("GET", "/v/a", &[session("me")], ""));
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting).await.is_err());
    assert_eq!(fixture.store.topology().waiting(), 0, "a dropped request is not waited for any more");
}

#[tokio::test(start_paused = true)]
async fn the_budget_sheds_what_the_primary_should_not_serve() {
    let fixture = with_positions(|b| b.primary_budget(0)).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let refused = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(refused.body.contains("budget"), "{}", refused.body);
    tokio::time::sleep(2 * LAG).await;
    assert_eq!(fixture.get("/v/a", &[session("me")]).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_allowed_by_name_only_and_says_so() {
    let ladder = Ladder::new().wait(Duration::ZERO).primary(false).stale(Duration::from_secs(60));
    let fixture = with_positions(|b| b.ladder(ladder)).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let stale = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!((stale.status.as_u16(), stale.body.as_str()), (200, "nothing"));
    assert_eq!(stale.header("x-consistency-enforced"), Some("false"));
    assert!(stale.route().contains("reason=stale-allowed"), "{}", stale.route());
}

#[tokio::test(start_paused = true)]
async fn without_any_watcher_reads_are_refused_and_writes_are_tried() {
    let topology = tower_ryw::Topology::new();
    drop((topology.add("p"), topology.add("r1")));
    assert!(topology.view().nodes().iter().all(|node| node.state() == NodeState::Down));
    let layer = tower_ryw::RywLayer::builder().positions(topology).build().unwrap();
    let store = ryw_testing::lagging::LaggingStore::builder().start();
    let app = crate::harness::values(store).layer(layer);
    let read = answer(app.clone().oneshot(request("GET", "/v/a", &[session("me")], "")).await).await;
    assert_eq!(read.status, 503, "{}", read.route());
    let write = answer(app.oneshot(request("PUT", "/v/a", &[session("me")], "1")).await).await;
    assert_eq!((write.status.as_u16(), write.header("x-consistency-enforced")), (204, Some("false")));
}

/// Reads that wait for a replica, each on a task of its own.
fn waiting(client: &std::sync::Arc<Client>, headers: [(&'static str, &'static str); 2], count: usize) -> Vec<Read> {
    let read = |_| {
        let client = std::sync::Arc::clone(client);
        tokio::spawn(async move { client.get(&headers).await.route().to_owned() })
    };
    (0..count).map(read).collect()
}

type Read = tokio::task::JoinHandle<String>;

#[tokio::test(start_paused = true)]
async fn no_session_and_no_tenant_takes_all_the_places_among_the_waiting() {
    let cluster = Cluster::with_limits(WaitLimits::new().per_session(2).per_tenant(5)).await;
    let tenant = |head: RequestHead<'_>| head.headers.get("x-tenant")?.to_str().ok()?.parse().ok();
    let layer = cluster.layer().tenant(tenant).ladder(Ladder::new().wait(2 * SECOND)).build().unwrap();
    let client = std::sync::Arc::new(Client::of(&layer));
    let of = |name, tenant| [session(name), ("x-tenant", tenant)];
    let everybody = [("a", "one"), ("b", "one"), ("c", "one"), ("d", "two")];
    for (name, tenant) in everybody {
        client.post(&of(name, tenant)).await;
    }
    // A first read of each session settles what a new store does not know.
    cluster.set("r1", replica(1, 100)).await;
    for (name, tenant) in everybody {
        assert!(client.get(&of(name, tenant)).await.route().starts_with("replica"));
    }
    cluster.set("r1", replica(1, 80)).await;

    let mut reads = Vec::new();
    for ((name, tenant), count, places) in [
        (everybody[0], 3, 2), // Two of one session.
        (everybody[1], 3, 4),
        (everybody[2], 3, 5), // Five of one tenant.
        (everybody[3], 3, 7),
    ] {
        reads.extend(waiting(&client, of(name, tenant), count));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(cluster.topology.waiting(), places, "{name} of {tenant}");
    }
    let refused = reads.iter().filter(|read| read.is_finished()).count();
    assert_eq!(refused, 5, "who finds no place does not wait");
    cluster.set("r1", replica(1, 100)).await;
    let mut routes = Vec::new();
    for read in reads {
        routes.push(read.await.unwrap());
    }
    let of = |prefix| routes.iter().filter(|route| route.starts_with(prefix)).count();
    assert_eq!((of("replica;node=\"r1\";reason=waited"), of("primary;reason=behind")), (7, 5), "{routes:?}");
}
