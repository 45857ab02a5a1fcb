//! A failover that takes an acknowledged write: its session is told until it says that it knows, and nobody else is.

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, put},
};
use http::StatusCode;
use ryw_core::{ClusterId, Epoch, Position};
use tokio::sync::Notify;
use tower::ServiceExt;
use tower_ryw::{
    Ladder, Reason, Route, Run, RywContext, RywLayer, Topology,
    topology::{Incarnation, NodeState, Reading, Role, Watch},
};

use crate::harness::{Answer, answer, level, request, session};

const ACK: (&str, &str) = ("ryw-lost", "ack");

fn at(epoch: u32, offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
}

/// A primary, and a replica that is promoted in the middle of a test.
struct Nodes {
    layer: RywLayer,
    app: Router,
    old: Watch,
    new: Watch,
    go_on: Arc<Notify>,
}

impl Nodes {
    fn start() -> Self {
        let topology = Topology::new();
        let (mut old, mut new) = (topology.add("p"), topology.add("r1"));
        old.begin().report(Reading::new(Role::Primary, at(1, 100)));
        new.begin().report(Reading::new(Role::Replica, at(1, 100)));
        let ladder = Ladder::new().wait(std::time::Duration::ZERO);
        let layer = RywLayer::builder().positions(topology).ladder(ladder).build().unwrap();
        let lost = async |context: RywContext| format!("{:?}", context.lost().map(|lost| lost.was.get()));
        // Says that a run of the old primary has served it.
        let run = async |context: RywContext| {
            let run = Run::new("p".into(), Incarnation(0), at(1, 100));
            context.served_by(Route::Primary, Reason::Write, Some(run));
        };
        // The same, and answers when it is told to.
        let go_on = Arc::new(Notify::new());
        let wait = Arc::clone(&go_on);
        let late = async move |context: RywContext| {
            run(context).await;
            wait.notified().await;
        };
        let app = Router::new()
            .route("/", get(lost).put(async || StatusCode::NO_CONTENT))
            .route("/run", get(run).put(run))
            .route("/late", put(late));
        Self { app: app.layer(layer.clone()), layer, old, new, go_on }
    }

    /// Sends a request, and answers whoever wants to know the primary's position until then.
    async fn send(&mut self, primary: Position, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut sent = Box::pin(self.app.clone().oneshot(request(method, path, headers, "")));
        loop {
            let watch = if primary.epoch() == Epoch::new(1) { &mut self.old } else { &mut self.new };
            tokio::select! {
                biased;
                response = &mut sent => return answer(response).await,
                turn = watch.next() => {
                    let reading = Reading::new(Role::Primary, primary);
                    turn.report(reading.fork(Epoch::new(2), Epoch::new(1), 120));
                }
            }
        }
    }

    /// The replica takes over at 120; what the old primary wrote beyond that is gone.
    fn fail_over(&mut self) {
        drop(self.old.begin());
        let reading = Reading::new(Role::Primary, at(2, 500)).fork(Epoch::new(2), Epoch::new(1), 120);
        self.new.begin().report(reading);
    }
}

fn lost(answer: &Answer) -> Option<&str> {
    answer.header("ryw-lost")
}

#[tokio::test(start_paused = true)]
async fn told_until_acknowledged_and_only_to_those_who_lost() {
    let mut nodes = Nodes::start();
    nodes.send(at(1, 110), "PUT", "/", &[session("kept")]).await;
    let written = nodes.send(at(1, 130), "PUT", "/", &[session("gone")]).await;
    let token = written.header("ryw-token").unwrap().to_owned();
    nodes.fail_over();

    for asked in ["EVENTUAL", "RYW", "SESSION"] {
        for headers in [[session("gone"), level(asked)], [("ryw-token", &*token), level(asked)]] {
            let read = nodes.send(at(2, 500), "GET", "/", &headers).await;
            assert_eq!(lost(&read), Some("?1;epoch=2;was=1"), "{asked}: {read:?}");
            assert_eq!(read.body, "Some(1)", "the handler knows");
        }
        let read = nodes.send(at(2, 500), "GET", "/", &[session("kept"), level(asked)]).await;
        assert_eq!((lost(&read), &*read.body), (None, "None"), "{asked}: {read:?}");
        // Who says that he knows, knows for himself only.
        let other = nodes.send(at(2, 500), "GET", "/", &[session("kept"), ACK]).await;
        assert_eq!(lost(&other), None);
    }
    assert_eq!(nodes.layer.stats().snapshot().lost_told, 6);

    // A write at RYW is made and told; one at SESSION would follow what is gone.
    let written = nodes.send(at(2, 510), "PUT", "/", &[session("gone")]).await;
    assert_eq!((written.status, lost(&written)), (StatusCode::NO_CONTENT, Some("?1;epoch=2;was=1")));
    for asked in ["SESSION", "CAUSAL", "STRONG"] {
        let refused = nodes.send(at(2, 510), "PUT", "/", &[session("gone"), level(asked)]).await;
        assert_eq!((refused.status, lost(&refused)), (StatusCode::CONFLICT, Some("?1;epoch=2;was=1")), "{asked}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    let grpc = ("content-type", "application/grpc");
    let refused = nodes.send(at(2, 510), "PUT", "/", &[session("gone"), level("SESSION"), grpc]).await;
    assert_eq!((refused.header("grpc-status"), lost(&refused)), (Some("9"), Some("?1;epoch=2;was=1")));

    // It says that it knows with the very write, and goes on.
    let written = nodes.send(at(2, 520), "PUT", "/", &[session("gone"), level("SESSION"), ACK]).await;
    assert_eq!((written.status, lost(&written)), (StatusCode::NO_CONTENT, None), "{written:?}");
    let read = nodes.send(at(2, 520), "GET", "/", &[session("gone"), level("SESSION")]).await;
    assert_eq!((lost(&read), &*read.body), (None, "None"), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_carries_its_token_gets_a_new_one() {
    let mut nodes = Nodes::start();
    let written = nodes.send(at(1, 130), "PUT", "/", &[]).await;
    let old = written.header("ryw-token").unwrap().to_owned();
    nodes.fail_over();
    let read = nodes.send(at(2, 500), "GET", "/", &[("ryw-token", &old), ACK]).await;
    let new = read.header("ryw-token").expect("a token without what is gone").to_owned();
    assert_eq!(lost(&read), None);
    let read = nodes.send(at(2, 500), "GET", "/", &[("ryw-token", &new)]).await;
    assert_eq!(lost(&read), None, "{read:?}");
    let read = nodes.send(at(2, 500), "GET", "/", &[("ryw-token", &old)]).await;
    assert_eq!(lost(&read), Some("?1;epoch=2;was=1"), "the old one still says what it said");
}

/// F22, F5: no other primary's position stands for a write.
#[tokio::test(start_paused = true)]
async fn a_write_whose_primary_is_gone_before_its_position_is_read_is_told() {
    let mut nodes = Nodes::start();
    let unsaid = nodes.app.clone().oneshot(request("PUT", "/run", &[session("me")], ""));
    let asked = tokio::spawn(unsaid);
    tokio::task::yield_now().await;
    nodes.fail_over();
    let written = answer(asked.await.unwrap()).await;
    assert_eq!(written.header("x-consistency-enforced"), Some("false"), "{written:?}");
    assert_eq!(lost(&written), Some("?1;epoch=2;was=1"), "{written:?}");
    let read = nodes.send(at(2, 500), "GET", "/", &[session("me")]).await;
    assert_eq!(lost(&read), Some("?1;epoch=2;was=1"), "{read:?}");
}

/// The failover comes between the commit and the question, so there is another primary that would answer it.
#[tokio::test(start_paused = true)]
async fn another_primary_does_not_stand_for_a_write() {
    let mut nodes = Nodes::start();
    let asked = tokio::spawn(nodes.app.clone().oneshot(request("PUT", "/late", &[session("me")], "")));
    tokio::task::yield_now().await;
    nodes.fail_over();
    nodes.go_on.notify_one();
    let written = async { answer(asked.await.unwrap()).await };
    let answering = async {
        loop {
            nodes.new.next().await.report(Reading::new(Role::Primary, at(2, 500)));
        }
    };
    let written = tokio::select! {
        written = written => written,
        () = answering => unreachable!(),
    };
    assert_eq!(lost(&written), Some("?1;epoch=2;was=1"), "{written:?}");
}

/// The same, and the primary comes back: nothing is lost, and a sample stands for the write.
#[tokio::test(start_paused = true)]
async fn a_write_whose_primary_comes_back_is_not_told() {
    let mut nodes = Nodes::start();
    let asked = tokio::spawn(nodes.app.clone().oneshot(request("PUT", "/run", &[session("me")], "")));
    tokio::task::yield_now().await;
    drop(nodes.old.begin());
    let written = answer(asked.await.unwrap()).await;
    assert_eq!((written.header("x-consistency-enforced"), lost(&written)), (Some("false"), None), "{written:?}");

    // Another run of its server, and the same epoch.
    let reading = || Reading::new(Role::Primary, at(1, 140)).incarnation(Incarnation(7));
    nodes.old.begin().report(reading());
    assert_eq!(nodes.layer.topology().unwrap().view().primary().map(|node| node.state()), Some(NodeState::Primary));
    let read = nodes.send(at(1, 140), "GET", "/", &[session("me")]).await;
    assert!(read.route().starts_with("primary;reason=pending-write"), "{}", read.route());
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let read = nodes.send(at(1, 140), "GET", "/", &[session("me")]).await;
    assert!(read.route().starts_with("primary;reason=behind"), "{}", read.route());
    assert_eq!(lost(&read), None);
    nodes.new.begin().report(Reading::new(Role::Replica, at(1, 140)));
    let read = nodes.send(at(1, 140), "GET", "/", &[session("me")]).await;
    assert!(read.route().contains("reason=caught-up"), "{}", read.route());
}
