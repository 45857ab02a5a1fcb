//! Reads that are made again on the primary.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use parking_lot::Mutex;
use ryw_testing::lagging::LaggingStore;
use tokio::{runtime::Handle, task::JoinHandle, time::sleep};
use tower::ServiceExt;
use tower_ryw::{
    Checked, Ladder, Observe, Route, RywContext, RywLayer, RywLayerBuilder, SpotCheck, SpotCheckLayer, Topology,
    topology::{Reading, Role},
};
use tracing::{Subscriber, span};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::{
    cluster::{Cluster, primary},
    harness::{Answer, answer, request, session, values},
};

const ME: (&str, &str) = session("me");
const CONFIRM: Duration = Duration::from_millis(50);

fn all() -> SpotCheckLayer {
    SpotCheckLayer::one_in(1).confirm_after(CONFIRM)
}

/// A gate that is broken: its watcher takes the primary's position for the replica's.
struct Liar {
    topology: Topology,
    tasks: Vec<JoinHandle<()>>,
}

impl Liar {
    fn of(store: &LaggingStore) -> Self {
        let topology = Topology::new();
        let watched = |(name, role)| {
            let (mut watch, store) = (topology.add(name), store.clone());
            tokio::spawn(async move {
                loop {
                    let turn = watch.next().await;
                    let position = store.topology().sample_primary().await.unwrap();
                    turn.report(Reading::new(role, position));
                }
            })
        };
        let tasks = [("primary", Role::Primary), ("r1", Role::Replica)].map(watched).into();
        Self { topology, tasks }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn layer(topology: &Topology) -> RywLayerBuilder {
    RywLayer::builder().positions(topology.clone()).ladder(Ladder::new().wait(Duration::ZERO))
}

fn found(layer: &RywLayer, which: Checked) -> u64 {
    layer.stats().snapshot().checked.into_iter().find_map(|(found, count)| (found == which).then_some(count)).unwrap()
}

fn counts(layer: &RywLayer) -> [u64; 5] {
    layer.stats().snapshot().checked.map(|(_, count)| count)
}

async fn send(app: &Router, method: &str, path: &str, who: (&str, &str), body: &str) -> Answer {
    answer(app.clone().oneshot(request(method, path, &[who], body)).await).await
}

/// Sessions that write and read the same few values, and often write what was there before.
async fn load(app: &Router, sessions: usize, rounds: usize, pause: impl Fn() -> Duration) {
    let all: Vec<_> = (0..sessions)
        .map(|number| {
            let (app, name) = (app.clone(), format!("session{number}"));
            let pauses: Vec<_> = (0..rounds).map(|_| pause()).collect();
            tokio::spawn(async move {
                for pause in pauses {
                    let path = format!("/v/{}", fastrand::u8(..2));
                    if fastrand::u8(..3) == 0 {
                        let value = fastrand::u8(..2).to_string();
                        send(&app, "PUT", &path, session(&name), &value).await;
                    }
                    send(&app, "GET", &path, session(&name), "").await;
                    sleep(pause).await;
                }
            })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
    sleep(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_believes_a_liar_is_found() {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(1)).start();
    let liar = Liar::of(&store);
    let told = Arc::new(Told::default());
    let layer = layer(&liar.topology).observer(Arc::clone(&told)).build().unwrap();
    let app = values(store).layer(all()).layer(layer.clone());
    sleep(Duration::from_millis(100)).await;
    send(&app, "GET", "/v/1", ME, "").await;
    send(&app, "PUT", "/v/1", ME, "mine").await;
    sleep(Duration::from_millis(200)).await;
    let read = send(&app, "GET", "/v/1", ME, "").await;
    assert_eq!((read.body.as_str(), read.route()), ("nothing", r#"replica;node="r1";reason=caught-up;level=ryw"#));
    sleep(CONFIRM / 2).await;
    assert_eq!(found(&layer, Checked::Violation), 0, "it is looked at twice");
    sleep(CONFIRM).await;
    assert_eq!(found(&layer, Checked::Violation), 1, "{:?}", counts(&layer));
    assert_eq!(told.0.lock().last(), Some(&(Checked::Violation, Some("r1".to_owned()))));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(send(&app, "GET", "/v/1", ME, "").await.body, "mine");
    sleep(CONFIRM * 3).await;
    assert_eq!(found(&layer, Checked::Agreed), 1, "{:?}", counts(&layer));
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<(Checked, Option<String>)>>);

impl Observe for Told {
    fn checked(&self, event: &SpotCheck<'_>) {
        self.0.lock().push((event.found, event.node.map(str::to_owned)));
    }
}

/// Also where others write meanwhile, if not without a pause.
#[tokio::test(start_paused = true)]
async fn a_liar_is_found_among_other_writers() {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(2)).start();
    let liar = Liar::of(&store);
    let layer = layer(&liar.topology).build().unwrap();
    let app = values(store).layer(all().in_flight(100)).layer(layer.clone());
    load(&app, 8, 50, || Duration::from_millis(fastrand::u64(100..4000))).await;
    assert!(found(&layer, Checked::Violation) > 0, "{:?}", counts(&layer));
}

#[tokio::test(start_paused = true)]
async fn whatever_others_write_is_no_violation() {
    for (lag, pause) in [(5, 20), (30, 30), (200, 400)] {
        let store = LaggingStore::builder().replicas(2).lag(Duration::from_millis(lag)).start();
        let layer = layer(store.topology()).build().unwrap();
        let app = values(store).layer(all().in_flight(100)).layer(layer.clone());
        load(&app, 20, 200, || Duration::from_millis(fastrand::u64(..pause))).await;
        let [agreed, violations, overtaken, ..] = counts(&layer);
        assert_eq!(violations, 0, "{:?}", counts(&layer));
        assert!(agreed > 100 && overtaken > 10, "nothing was tried: {:?}", counts(&layer));
    }
}

/// A service in which `handler` says what is answered; the session has written, and both replicas have that.
async fn caught_up(
    cluster: &Cluster,
    checks: SpotCheckLayer,
    handler: impl Fn(RywContext) -> String + Clone + Send + Sync + 'static,
) -> (Router, RywLayer) {
    let layer = cluster.layer().build().unwrap();
    let answer = move |context: RywContext| async move { handler(context) };
    let app = Router::new().route("/", get(answer.clone()).post(answer)).layer(checks).layer(layer.clone());
    for replica in ["r1", "r2"] {
        cluster.set(replica, crate::cluster::replica(1, 100)).await;
    }
    send(&app, "GET", "/", ME, "").await;
    send(&app, "POST", "/", ME, "").await;
    sleep(CONFIRM * 3).await;
    (app, layer)
}

fn by_route(context: &RywContext) -> String {
    if context.route() == Route::Primary { "new".into() } else { "old".into() }
}

#[tokio::test(start_paused = true)]
async fn what_has_been_written_meanwhile_proves_nothing() {
    let cluster = Cluster::start().await;
    let (app, layer) = caught_up(&cluster, all(), |context| by_route(&context)).await;
    let before = counts(&layer);
    send(&app, "GET", "/", ME, "").await;
    sleep(CONFIRM / 2).await;
    cluster.set("p", primary(1, 101)).await;
    sleep(CONFIRM * 3).await;
    assert_eq!(counts(&layer)[2], before[2] + 1, "the second look: {:?}", counts(&layer));
    send(&app, "GET", "/", ME, "").await;
    sleep(CONFIRM * 3).await;
    assert_eq!(counts(&layer)[2], before[2] + 2, "the first look: {:?}", counts(&layer));
    assert_eq!(counts(&layer)[1], before[1]);
}

/// A commit that waits for a synchronous standby is on the replica, and not yet shown by the primary.
#[tokio::test(start_paused = true)]
async fn a_primary_that_does_not_show_it_yet_proves_nothing() {
    let cluster = Cluster::start().await;
    let (app, layer) = caught_up(&cluster, all(), |context| by_route(&context)).await;
    let before = counts(&layer);
    cluster.set("p", primary(1, 100).visible(Some(crate::cluster::at(1, 99)))).await;
    send(&app, "GET", "/", ME, "").await;
    sleep(CONFIRM * 3).await;
    assert_eq!((counts(&layer)[1], counts(&layer)[2]), (before[1], before[2] + 1), "{:?}", counts(&layer));
}

#[tokio::test(start_paused = true)]
async fn a_failover_proves_nothing() {
    let cluster = Cluster::start().await;
    let (app, layer) = caught_up(&cluster, all(), |context| by_route(&context)).await;
    let before = counts(&layer)[1];
    send(&app, "GET", "/", ME, "").await;
    sleep(CONFIRM / 2).await;
    cluster.fail_over().await;
    sleep(CONFIRM * 10).await;
    assert_eq!(counts(&layer)[1], before, "{:?}", counts(&layer));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_different_each_time_is_not_compared() {
    let cluster = Cluster::start().await;
    let number = Arc::new(AtomicU64::new(0));
    let next = move |_| number.fetch_add(1, Relaxed).to_string();
    let (app, layer) = caught_up(&cluster, all(), next).await;
    let before = counts(&layer);
    send(&app, "GET", "/", ME, "").await;
    sleep(CONFIRM * 3).await;
    let after = counts(&layer);
    assert_eq!((after[1], after[3]), (before[1], before[3] + 1), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_is_not_compared() {
    let cluster = Cluster::start().await;
    let (app, layer) = caught_up(&cluster, all().max_body(2), |context| by_route(&context)).await;
    let before = counts(&layer);
    assert_eq!(send(&app, "GET", "/", ME, "").await.body, "old", "and it is answered all the same");
    sleep(CONFIRM * 3).await;
    assert_eq!((counts(&layer)[1], counts(&layer)[3]), (before[1], before[3] + 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_are_under_way_than_may_be() {
    let cluster = Cluster::start().await;
    let (app, layer) = caught_up(&cluster, all().in_flight(2), |context| by_route(&context)).await;
    let before = counts(&layer);
    for _ in 0..5 {
        send(&app, "GET", "/", ME, "").await;
    }
    sleep(CONFIRM * 3).await;
    let after = counts(&layer);
    assert_eq!((after[1] - before[1], after[4] - before[4]), (2, 3), "{after:?}");
}

/// A read that says that it has written would write again.
#[tokio::test(start_paused = true)]
async fn whoever_writes_is_not_called_again() {
    let cluster = Cluster::start().await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let counts_views = move |context: RywContext| {
        context.mark_written();
        counted.fetch_add(1, Relaxed).to_string()
    };
    let (app, layer) = caught_up(&cluster, all(), counts_views).await;
    let before = calls.load(Relaxed);
    for _ in 0..3 {
        send(&app, "GET", "/", ME, "").await;
    }
    sleep(CONFIRM * 3).await;
    assert_eq!((calls.load(Relaxed), counts(&layer)), (before + 3, [0; 5]));
}

#[tokio::test(start_paused = true)]
async fn none_are_made_when_it_is_off_or_nothing_was_promised() {
    let cluster = Cluster::start().await;
    let calls = Arc::new(AtomicU64::new(0));
    for (checks, who) in [(SpotCheckLayer::one_in(0), Some(ME)), (all(), None)] {
        let counted = Arc::clone(&calls);
        let handler = move |_| counted.fetch_add(1, Relaxed).to_string();
        let (app, layer) = caught_up(&cluster, checks, handler).await;
        let (before, found) = (calls.load(Relaxed), counts(&layer));
        let tasks = Handle::current().metrics().num_alive_tasks();
        answer(app.oneshot(request("GET", "/", who.as_slice(), "")).await).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
        sleep(CONFIRM * 3).await;
        assert_eq!((calls.load(Relaxed) - before, counts(&layer)), (1, found), "{who:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_the_layer() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let running = Arc::new(());
    let held = Arc::clone(&running);
    let handler = move |context: RywContext| {
        let held = Arc::clone(&held);
        async move {
            if context.route() == Route::Primary && !context.may_write() {
                sleep(Duration::from_secs(3600)).await;
            }
            drop(held);
            "done"
        }
    };
    let checks = all().deadline(Duration::from_secs(7200));
    let app = Router::new().route("/", get(handler.clone()).post(handler)).layer(checks).layer(layer);
    for replica in ["r1", "r2"] {
        cluster.set(replica, crate::cluster::replica(1, 100)).await;
    }
    send(&app, "POST", "/", ME, "").await;
    send(&app, "GET", "/", ME, "").await;
    sleep(CONFIRM).await;
    assert!(Arc::strong_count(&running) > 2, "one is under way");
    drop(app);
    sleep(CONFIRM).await;
    assert_eq!(Arc::strong_count(&running), 1);
}

/// Which span follows from which, by name.
#[derive(Clone, Default)]
struct Links(Arc<Mutex<Vec<[String; 2]>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Links {
    fn on_follows_from(&self, id: &span::Id, follows: &span::Id, context: Context<'_, S>) {
        let name = |id| context.span(id).map_or("", |span| span.name()).to_owned();
        self.0.lock().push([name(id), name(follows)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_is_linked_to_the_request() {
    let links = Links::default();
    let _watching = tracing::subscriber::set_default(Registry::default().with(links.clone()));
    let cluster = Cluster::start().await;
    let (app, _) = caught_up(&cluster, all(), |context| by_route(&context)).await;
    send(&app, "GET", "/", ME, "").await;
    let seen = links.0.lock();
    assert!(!seen.is_empty() && seen.iter().all(|link| *link == ["ryw.check", "ryw"].map(str::to_owned)), "{seen:?}");
}

/// Answers with this status from that kind of node, and with 200 from the other.
fn troubled(topology: &Topology, on_primary: bool, status: u16) -> (RywLayer, Router) {
    let layer = layer(topology).build().unwrap();
    let handler = move |context: RywContext| async move {
        let here = matches!(context.route(), Route::Primary) == on_primary;
        http::StatusCode::from_u16(if here { status } else { 200 }).unwrap()
    };
    let app = Router::new().route("/", get(handler).post(async || ())).layer(all()).layer(layer.clone());
    (layer, app)
}

#[tokio::test(start_paused = true)]
async fn trouble_on_the_way_to_the_data_is_no_violation() {
    for (on_primary, status) in [(true, 500), (true, 429), (false, 503), (false, 408)] {
        let cluster = Cluster::start().await;
        cluster.set("r1", crate::cluster::replica(1, 100)).await;
        cluster.set("r2", crate::cluster::replica(1, 100)).await;
        let (layer, app) = troubled(&cluster.topology, on_primary, status);
        answer(app.clone().oneshot(request("GET", "/", &[ME], "")).await).await;
        answer(app.clone().oneshot(request("POST", "/", &[ME], "")).await).await;
        let read = answer(app.clone().oneshot(request("GET", "/", &[ME], "")).await).await;
        assert!(read.route().starts_with("replica"), "{}", read.route());
        sleep(2 * CONFIRM).await;
        assert_eq!(found(&layer, Checked::Violation), 0, "{status}");
        assert!(found(&layer, Checked::Incomparable) > 0, "{status}: {:?}", counts(&layer));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_not_made_again() {
    let cluster = Cluster::start().await;
    cluster.set("r1", crate::cluster::replica(1, 100)).await;
    cluster.set("r2", crate::cluster::replica(1, 100)).await;
    let layer = layer(&cluster.topology).build().unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let handler = {
        let calls = Arc::clone(&calls);
        move |_: RywContext| async move {
            calls.fetch_add(1, Relaxed);
        }
    };
    let app = Router::new().route("/", get(handler).post(async || ())).layer(all()).layer(layer.clone());
    answer(app.clone().oneshot(request("POST", "/", &[ME], "")).await).await;
    let upgrade = [ME, ("connection", "upgrade"), ("upgrade", "websocket")];
    for (headers, expected) in [(&upgrade[..], 1), (&upgrade[..1], 3)] {
        answer(app.clone().oneshot(request("GET", "/", headers, "")).await).await;
        sleep(2 * CONFIRM).await;
        assert_eq!(calls.load(Relaxed), expected, "{headers:?}");
    }
}
