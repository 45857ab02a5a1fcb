//! What a replica could not do is done elsewhere: once, for reads, and marked.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, Ready, poll_fn, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, response::Response, routing::any};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt};
use tower_ryw::{NodeName, Reason, ReplayLayer, Route, RywContext, RywLayer};

use crate::{
    cluster::{Client, Cluster, at, run},
    harness::{level, request, session},
};

const ME: (&str, &str) = session("me");
const FAILED: u16 = 500;

/// What the handler does at one call.
type Act = Box<dyn FnOnce(&RywContext, &NodeName) -> Response + Send>;

/// A handler that does one thing after the other, and remembers where it was sent and why.
#[derive(Clone, Default)]
struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    calls: Arc<Mutex<Vec<(Route, Reason)>>>,
    hangs_at: Option<usize>,
}

fn answers(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

impl Script {
    fn then(self, act: impl FnOnce(&RywContext, &NodeName) -> Response + Send + 'static) -> Self {
        self.acts.lock().push_back(Box::new(act));
        self
    }

    fn finds_write(self, status: u16) -> Self {
        self.then(move |context, _| {
            context.found_write();
            answers(status)
        })
    }

    fn finds_failure(self, status: u16) -> Self {
        self.then(move |context, node| {
            context.found_failure(node);
            answers(status)
        })
    }

    fn says(self, status: u16) -> Self {
        self.then(move |_, _| answers(status))
    }

    fn hanging_at(self, call: usize) -> Self {
        Self { hangs_at: Some(call), ..self }
    }

    fn on(&self, layer: &RywLayer) -> Client {
        let script = self.clone();
        let handler = any(move |context: RywContext| async move {
            let number = script.calls.lock().len();
            script.calls.lock().push((context.route(), context.reason()));
            let node = match context.route() {
                Route::Replica { node: Some(node) } => node,
                _ => NodeName::from("p"),
            };
            let act = script.acts.lock().pop_front().expect("called more often than expected");
            let response = act(&context, &node);
            if script.hangs_at == Some(number) {
                std::future::pending::<()>().await;
            }
            response
        });
        Client { app: Router::new().route("/", handler).layer(ReplayLayer::new()).layer(layer.clone()) }
    }

    fn calls(&self) -> Vec<(Route, Reason)> {
        self.calls.lock().clone()
    }

    fn count(&self) -> usize {
        self.calls.lock().len()
    }
}

fn node(route: &Route) -> &str {
    match route {
        Route::Replica { node: Some(node) } => node.as_str(),
        _ => "primary",
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_turns_out_to_write_is_made_again_on_the_primary_and_marked() {
    for headers in [&[ME][..], &[]] {
        let cluster = Cluster::start().await;
        let layer = cluster.layer().build().unwrap();
        let script = Script::default().says(200).finds_write(500).says(200);
        let client = script.on(&layer);
        // A new store's doubts are settled here, on the primary's 100; the replicas follow.
        client.get(&[ME]).await;
        cluster.put("r1", Some(crate::cluster::replica(1, 100)));
        cluster.set("r2", crate::cluster::replica(1, 100)).await;
        let first = client.get(headers).await;
        let calls = script.calls();
        assert!(calls.len() == 3 && node(&calls[1].0) != "primary", "{calls:?}");
        assert_eq!(calls[2], (Route::Primary, Reason::Replayed));
        assert!(first.route().starts_with("primary;reason=replayed"), "{}", first.route());
        assert_eq!(first.status, 200);
        assert!(first.header("ryw-token").is_some(), "it has written");
        assert_eq!(layer.stats().snapshot().marked, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_a_replica_broke_off_is_made_again_on_another() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    for _ in 0..20 {
        let script = Script::default().finds_failure(FAILED).says(200);
        let read = script.on(&layer).get(&[level("EVENTUAL")]).await;
        let calls = script.calls();
        let mut nodes = [node(&calls[0].0), node(&calls[1].0)];
        nodes.sort_unstable();
        assert_eq!((read.status.as_u16(), nodes), (200, ["r1", "r2"]));
    }
    assert_eq!(layer.stats().snapshot().marked, 0, "a read all the same");
    cluster.down("r2").await;
    let script = Script::default().finds_failure(FAILED).says(200);
    script.on(&layer).get(&[level("EVENTUAL")]).await;
    assert_eq!(script.calls()[1], (Route::Primary, Reason::NoReplica));
}

#[tokio::test(start_paused = true)]
async fn once_and_no_more() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    for script in [
        Script::default().finds_write(FAILED).finds_write(FAILED),
        Script::default().finds_failure(FAILED).finds_failure(FAILED),
        Script::default().finds_failure(FAILED).finds_write(FAILED),
    ] {
        assert_eq!(script.on(&layer).get(&[]).await.status, FAILED);
        assert_eq!(script.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_made_again_is_not() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let once = async |script: Script, request: Request<Body>, why: &str| {
        let status = script.on(&layer).send_request(request).await.status;
        assert_eq!(script.count(), 1, "{why}");
        status
    };
    let get = || request("GET", "/", &[], "");
    once(Script::default().finds_write(FAILED), request("POST", "/", &[], ""), "a write").await;
    once(Script::default().finds_failure(FAILED), request("DELETE", "/", &[ME], ""), "a write").await;
    once(Script::default().finds_write(FAILED), request("GET", "/", &[], "body"), "the body is gone").await;
    once(Script::default().says(FAILED), get(), "nothing was found").await;
    once(Script::default().finds_write(FAILED), request("GET", "/", &[level("STRONG")], ""), "by the primary").await;
    for status in [200, 304, 404, 409] {
        let answered = once(Script::default().finds_write(status), get(), "the handler has dealt with it").await;
        assert_eq!(answered, status);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_in_grpc_is_one_although_its_status_says_200() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    for (code, calls) in [("13", 2), ("14", 2), ("0", 1)] {
        let script = Script::default().then(|context, _| {
            context.found_write();
            let mut response = answers(200);
            response.headers_mut().insert("grpc-status", code.parse().unwrap());
            response
        });
        let script = script.says(200);
        script.on(&layer).get(&[]).await;
        assert_eq!(script.count(), calls, "grpc-status {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_used_the_primary_is_not_done_twice() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    // Nothing is in doubt, and replicas serve.
    for name in ["me", "other", "third"] {
        Script::default().says(200).on(&layer).get(&[session(name)]).await;
    }
    cluster.put("r1", Some(crate::cluster::replica(1, 100)));
    cluster.set("r2", crate::cluster::replica(1, 100)).await;
    for finds_write in [false, true] {
        // Counts the view on the primary, and then reads from a replica, which fails.
        let script = Script::default().then(move |context, node| {
            context.mark_written();
            context.served_by(Route::Primary, Reason::Write, Some(run("p", 1, at(1, 95))));
            if finds_write {
                context.found_write();
            } else {
                context.found_failure(node);
            }
            answers(FAILED)
        });
        let script = script.says(200);
        // A session of its own each time: the one before has written.
        let name = if finds_write { "other" } else { "me" };
        assert_eq!(script.on(&layer).get(&[session(name)]).await.status, FAILED);
        assert!(matches!(&script.calls()[..], [(Route::Replica { .. }, _)]), "{:?}", script.calls());
    }
    // A handler that says so before it tries, and was refused.
    let script = Script::default().then(|context, _| {
        context.mark_written();
        context.found_write();
        answers(FAILED)
    });
    let script = script.says(200);
    assert_eq!(script.on(&layer).get(&[session("third")]).await.status, 200);
    assert_eq!(script.calls()[1], (Route::Primary, Reason::Replayed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_the_first_call_leaves_nothing_and_during_the_second_a_mark() {
    for (hangs_at, pending) in [(0, false), (1, true)] {
        let cluster = Cluster::start().await;
        let layer = cluster.layer().build().unwrap();
        let settle = Client::of(&layer);
        settle.get(&[ME]).await;
        let script = Script::default().finds_write(FAILED).says(200).hanging_at(hangs_at);
        cluster.put("r1", Some(crate::cluster::replica(1, 100)));
        cluster.set("r2", crate::cluster::replica(1, 100)).await;
        let client = script.on(&layer);
        assert!(timeout(Duration::from_millis(10), client.get(&[ME])).await.is_err());
        assert_eq!(script.count(), hangs_at + 1);
        let read = settle.get(&[ME]).await;
        assert_eq!(read.route().contains("reason=pending-write"), pending, "{}", read.route());
        assert_eq!(layer.stats().snapshot().unknown_outcomes, u64::from(pending));
        sleep(Duration::from_millis(2100)).await;
        assert!(settle.get(&[ME]).await.route().starts_with("replica"));
    }
}

/// Must be ready before each call; a clone does not inherit that. Fails its first call.
#[derive(Default)]
struct Probe {
    ready: bool,
    calls: Arc<AtomicUsize>,
    /// The second call finds no room at first.
    polls: Arc<AtomicUsize>,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls), polls: Arc::clone(&self.polls) }
    }
}

impl Service<Request<Body>> for Probe {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.polls.fetch_add(1, SeqCst) == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        if self.calls.fetch_add(1, SeqCst) == 0 {
            RywContext::current().unwrap().found_write();
            return ready(Ok(answers(FAILED)));
        }
        ready(Ok(answers(200)))
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_is_made_on_an_instance_that_is_ready() {
    let cluster = Cluster::start().await;
    let probe = Probe::default();
    let mut service = cluster.layer().build().unwrap().layer(ReplayLayer::new().layer(probe.clone()));
    let call = service.ready().await.unwrap().call(request("GET", "/", &[], ""));
    let mut call = pin!(call);
    let response = poll_fn(|cx| call.as_mut().poll(cx)).await.unwrap();
    assert_eq!((response.status().as_u16(), probe.calls.load(SeqCst)), (200, 2));
}

#[tokio::test(start_paused = true)]
async fn without_the_layer_around_it_nothing_is_made_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = any(move || async move {
        counted.fetch_add(1, SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    });
    let client = Client { app: Router::new().route("/", handler).layer(ReplayLayer::new()) };
    assert_eq!((client.get(&[]).await.status.as_u16(), calls.load(SeqCst)), (FAILED, 1));
}
