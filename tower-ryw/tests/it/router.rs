//! The request itself goes to a primary or a replica service.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use ryw_testing::lagging::LaggingStore;
use tower::{Layer, Service, ServiceExt};
use tower_ryw::{Ladder, RywLayer, RywRouter};

use crate::harness::{Answer, answer, request, session};

/// One node's service: says its name, and may never be ready.
#[derive(Clone)]
struct Node {
    name: &'static str,
    store: LaggingStore,
    dead: bool,
}

impl Service<Request<Body>> for Node {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.dead { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() == "PUT" {
            self.store.put("t", "a", Some(self.name.into())).unwrap();
        }
        std::future::ready(Ok(Response::new(Body::from(self.name))))
    }
}

async fn send(
    service: impl Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    method: &str,
    name: &str,
) -> Answer {
    answer(service.oneshot(request(method, "/", &[session(name)], "")).await).await
}

fn nodes(names: &[&'static str], dead: &str) -> (LaggingStore, RywRouter<Node>, RywLayer) {
    let store = LaggingStore::builder().replicas(2).lag(Duration::from_secs(1)).start();
    let node = |name: &'static str| Node { name, store: store.clone(), dead: name == dead };
    let router = RywRouter::new(node("p"), names.iter().map(|name| (*name, node(name))));
    let layer = RywLayer::builder().positions(store.topology().clone()).ladder(Ladder::new().wait(Duration::ZERO));
    (store, router, layer.build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn follows_the_decision() {
    let (_store, router, layer) = nodes(&["r1", "r2"], "");
    let service = layer.layer(router);
    assert_eq!(send(service.clone(), "PUT", "me").await.body, "p");
    let read = send(service.clone(), "GET", "me").await;
    assert_eq!((read.body.as_str(), read.route().starts_with("primary")), ("p", true));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..20 {
        let read = send(service.clone(), "GET", "me").await;
        assert!(read.body.starts_with('r'));
        assert!(read.route().contains(&format!("node=\"{}\"", read.body)), "{} says {}", read.body, read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_not_known_here_is_replaced_by_the_primary() {
    let (_store, router, layer) = nodes(&["elsewhere"], "");
    let read = send(layer.layer(router), "GET", "me").await;
    assert_eq!((read.body.as_str(), read.route()), ("p", "primary;reason=no-replica;level=ryw"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_holds_up_only_its_own_requests() {
    let (_store, router, layer) = nodes(&["r1", "r2"], "r1");
    let service = layer.layer(router);
    let mut served = 0;
    for number in 0..40 {
        let name = format!("session-{number}");
        let read = tokio::time::timeout(Duration::from_millis(1), send(service.clone(), "GET", &name)).await;
        served += usize::from(read.is_ok_and(|read| read.body == "r2"));
    }
    assert!((5..=35).contains(&served), "about half: {served}");
    assert_eq!(send(service, "PUT", "me").await.body, "p");
}

#[tokio::test]
async fn without_a_layer_everything_goes_to_the_primary() {
    let (_store, router, _) = nodes(&["r1"], "");
    assert_eq!(send(router, "GET", "me").await.body, "p");
}
