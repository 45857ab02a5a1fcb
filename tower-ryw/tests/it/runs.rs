//! A write's position is that of the run that committed it, and a read's that of the run that showed it.

use std::{sync::Arc, time::Duration};

use axum::routing::{MethodRouter, any};
use parking_lot::Mutex;
use ryw_core::{ClusterId, Epoch, Keyring, Marks, Position, Tenant, Token};
use tokio::time::sleep;
use tower_ryw::{NodeName, Reason, Route, Run, RywContext, RywLayer, topology::Incarnation};

use crate::{
    cluster::{Client, Cluster, at, forked, primary, replica, run},
    harness::{Answer, level, session},
};

const ME: (&str, &str) = session("me");
const WINDOW: Duration = Duration::from_secs(2);

/// What happens while the handler is at work, after it was served.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

struct Scene {
    cluster: Cluster,
    client: Client,
    layer: RywLayer,
    keys: Keyring,
    meanwhile: Meanwhile,
}

/// `/it` is served by `by`, then something happens, then the handler answers.
async fn scene(by: Vec<(Route, Option<Run>)>) -> Scene {
    let cluster = Cluster::start().await;
    let keys = Keyring::random().unwrap();
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let meanwhile = Meanwhile::default();
    let client = Client::with(&layer, served(by, Arc::clone(&meanwhile)));
    client.get(&[ME]).await;
    Scene { cluster, client, layer, keys, meanwhile }
}

fn served(by: Vec<(Route, Option<Run>)>, meanwhile: Meanwhile) -> MethodRouter {
    any(move |context: RywContext| async move {
        for (route, run) in by {
            context.served_by(route, Reason::Write, run);
        }
        let happens = meanwhile.lock().take();
        if let Some(happens) = happens {
            happens();
            // Two readings later everybody knows.
            sleep(Duration::from_millis(50)).await;
        }
    })
}

fn on(node: &str, incarnation: u64, position: Position) -> Vec<(Route, Option<Run>)> {
    vec![(Route::Primary, Some(run(node, incarnation, position)))]
}

fn shown_by(node: &str, incarnation: u64, position: Position) -> Vec<(Route, Option<Run>)> {
    let route = Route::Replica { node: Some(NodeName::from(node)) };
    vec![(route, Some(run(node, incarnation, position)))]
}

const fn end(epoch: u32) -> Position {
    Position::end_of(ClusterId::new(1), Epoch::new(epoch))
}

impl Scene {
    /// What happens while the next request is at work.
    fn happens(&self, happens: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock() = Some(Box::new(happens));
    }

    async fn write(&self) -> Answer {
        self.client.send("POST", "/it", &[ME]).await
    }

    fn marks(&self, answer: &Answer) -> Marks {
        Token::open(&self.keys, &Tenant::default(), answer.header("ryw-token").unwrap()).unwrap().marks
    }

    async fn replicas(&self, offset: u64) {
        self.cluster.put("r1", Some(replica(1, offset)));
        self.cluster.set("r2", replica(1, offset)).await;
    }
}

fn told(answer: &Answer) -> Option<&str> {
    answer.header("ryw-lost")
}

#[tokio::test(start_paused = true)]
async fn the_run_that_committed_tells_the_position() {
    let scene = scene(on("p", 1, at(1, 95))).await;
    let written = scene.write().await;
    assert_eq!(written.header("x-consistency-enforced"), Some("true"));
    assert_eq!(scene.marks(&written), Marks::at(at(1, 100)));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_primary_does_not_say_where_the_write_was() {
    let scene = scene(on("p", 1, at(1, 95))).await;
    let cluster = &scene.cluster;
    cluster.set("p", primary(1, 120).incarnation(Incarnation(2))).await;
    let written = scene.write().await;
    assert_eq!(written.header("x-consistency-enforced"), Some("false"), "nobody knows where it is");
    let marks = scene.marks(&written);
    assert!(marks.positions().contains(&end(1)) && marks.is_pending(), "{marks:?}");
    assert_eq!((told(&written), scene.layer.stats().snapshot().degraded_marks), (None, 1));
    scene.replicas(120).await;
    let held = scene.client.get(&[ME]).await;
    assert!(held.route().starts_with("primary;reason=pending-write"), "{}", held.route());

    // Once it is certain that it has committed or never will, a sample of the same epoch stands for it. Tokens count
    // in whole seconds.
    sleep(2 * WINDOW).await;
    let token = written.header("ryw-token").unwrap();
    for headers in [&[ME][..], &[ME, ("ryw-token", token)], &[("ryw-token", token)]] {
        let read = scene.client.get(headers).await;
        assert_eq!(told(&read), None);
        assert!(read.route().starts_with("replica"), "{}", read.route());
    }
    // And it stands for it from then on, for whoever goes by the store.
    scene.cluster.set("p", primary(1, 130).incarnation(Incarnation(2))).await;
    let read = scene.client.get(&[ME]).await;
    assert!(read.route().starts_with("replica"), "settled once: {}", read.route());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_find_out_before_a_failover_is_told() {
    for settled in [false, true] {
        let scene = scene(on("p", 1, at(1, 95))).await;
        scene.cluster.set("p", primary(1, 120).incarnation(Incarnation(2))).await;
        let written = scene.write().await;
        let token = written.header("ryw-token").unwrap();
        sleep(WINDOW + Duration::from_millis(100)).await;
        if settled {
            // Contained in 120, which the failover at 90 loses as well.
            scene.client.get(&[ME]).await;
        }
        scene.cluster.fail_over().await;
        for headers in [&[ME][..], &[("ryw-token", token)]] {
            assert_eq!(told(&scene.client.get(headers).await), Some("?1;epoch=2;was=1"), "settled: {settled}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failover_between_commit_and_sample_is_told_at_once() {
    let scene = scene(on("p", 1, at(1, 95))).await;
    let nodes = scene.cluster.remote();
    scene.happens(move || nodes.fail_over());
    let written = scene.write().await;
    assert_eq!(told(&written), Some("?1;epoch=2;was=1"));
    assert_eq!(written.header("x-consistency-enforced"), Some("false"));
    assert!(scene.marks(&written).positions().contains(&end(1)));
    assert_eq!(told(&scene.client.get(&[ME]).await), Some("?1;epoch=2;was=1"));
    assert_eq!(told(&scene.client.get(&[ME, ("ryw-lost", "ack")]).await), None);
    sleep(WINDOW + Duration::from_millis(100)).await;
    let read = scene.client.get(&[ME]).await;
    assert_eq!((told(&read), &read.route()[..7]), (None, "replica"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_replaced_and_still_answers_tells_its_own_position() {
    let scene = scene(on("p", 1, at(1, 95))).await;
    let nodes = scene.cluster.remote();
    scene.happens(move || {
        nodes.fail_over();
        // Cut off, but not from us.
        nodes.put("p", Some(primary(1, 110)));
    });
    let written = scene.write().await;
    // Where it is, is known; and that it is lost.
    assert_eq!(scene.marks(&written).positions(), [at(1, 110), at(2, 90)], "and the epoch that it was lost in");
    assert_eq!(told(&written), Some("?1;epoch=2;was=1"));
}

#[tokio::test(start_paused = true)]
async fn without_a_run_the_sample_of_another_epoch_is_not_taken_for_the_write() {
    let scene = scene(vec![]).await;
    let nodes = scene.cluster.remote();
    scene.happens(move || nodes.fail_over());
    let written = scene.write().await;
    assert_eq!(told(&written), Some("?1;epoch=2;was=1"));
    assert_eq!(scene.marks(&written).positions(), [at(1, 100), end(1), at(2, 200)]);
    assert_eq!(told(&scene.client.get(&[ME]).await), Some("?1;epoch=2;was=1"));
}

#[tokio::test(start_paused = true)]
async fn a_failover_while_nobody_answers_is_told_later() {
    for by in [vec![], on("p", 1, at(1, 95))] {
        let scene = scene(by).await;
        let nodes = scene.cluster.remote();
        scene.happens(move || nodes.down());
        let written = scene.write().await;
        assert_eq!((told(&written), written.header("x-consistency-enforced")), (None, Some("false")));
        assert!(scene.marks(&written).positions().contains(&end(1)));
        scene.cluster.fail_over().await;
        let token = written.header("ryw-token").unwrap();
        for headers in [&[ME][..], &[("ryw-token", token)]] {
            assert_eq!(told(&scene.client.get(headers).await), Some("?1;epoch=2;was=1"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_on_the_new_primary_that_was_routed_before_is_not_lost() {
    let scene = scene(on("r1", 1, at(2, 195))).await;
    let nodes = scene.cluster.remote();
    scene.happens(move || nodes.fail_over());
    let written = scene.client.send("POST", "/it", &[]).await;
    assert_eq!((told(&written), written.header("x-consistency-enforced")), (None, Some("true")));
    assert_eq!(scene.marks(&written), Marks::at(at(2, 200)));
}

#[tokio::test(start_paused = true)]
async fn every_run_that_wrote_counts() {
    let mut by = on("p", 1, at(1, 95));
    by.extend(on("r1", 1, at(2, 195)));
    let scene = scene(by).await;
    let nodes = scene.cluster.remote();
    scene.happens(move || nodes.fail_over());
    let written = scene.write().await;
    assert_eq!(scene.marks(&written).positions(), [at(1, 100), end(1), at(2, 200)]);
    assert_eq!(told(&written), Some("?1;epoch=2;was=1"));
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_showed_is_read_from_the_same_run() {
    for (incarnation, expected) in [(1, at(1, 80)), (7, at(1, 100))] {
        let scene = scene(shown_by("r1", incarnation, at(1, 75))).await;
        // Another session, of which nothing is known: no mark of its own hides the read's.
        let read = scene.client.send("GET", "/it", &[level("MONOTONIC")]).await;
        assert_eq!(scene.marks(&read).positions(), [expected], "run {incarnation}, which is now the first");
        assert_eq!(read.header("x-consistency-enforced"), Some("true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_left_the_history_still_tells_what_it_showed() {
    let scene = scene(shown_by("r1", 1, at(1, 75))).await;
    let nodes = scene.cluster.remote();
    scene.happens(move || {
        // r2 is promoted at 90, and r1 has gone beyond that.
        nodes.put("p", None);
        nodes.put("r2", Some(forked(primary(2, 200))));
        nodes.put("r1", Some(replica(1, 96)));
    });
    let read = scene.client.send("GET", "/it", &[level("MONOTONIC")]).await;
    assert_eq!(scene.marks(&read).positions(), [at(1, 96), at(2, 90)]);
    assert_eq!(told(&read), Some("?1;epoch=2;was=1"));
}
