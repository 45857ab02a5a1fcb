//! A mark store that is slow, fails, or hangs: requests are served all the same, and no guarantee is dropped.

use std::{future::pending, time::Duration};

use ryw_core::{
    Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_ryw::{Ladder, LocalStore, RywLayer};

use crate::harness::{Fixture, request, session, values};

#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) how: How,
    pub(crate) local: LocalStore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Slow,
    Fails,
    Hangs,
}

impl Remote {
    fn answer<T: Send + Unpin + 'static>(
        &self,
        run: impl FnOnce(LocalStore) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let Self { how, local } = self.clone();
        StoreFuture::boxed(async move {
            match how {
                How::Slow => tokio::time::sleep(Duration::from_millis(50)).await,
                How::Fails => return Err(StoreError::new(StoreErrorKind::Unavailable)),
                How::Hangs => pending().await,
            }
            run(local).await
        })
    }
}

impl MarkStore for Remote {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        let keys = keys.to_vec();
        self.answer(move |local| local.load(&keys))
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        let (keys, update) = (keys.to_vec(), update.clone());
        self.answer(move |local| local.join(&keys, &update))
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        let (keys, told) = (keys.to_vec(), told.clone());
        self.answer(move |local| local.acknowledge(&keys, &told))
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let unsettled = unsettled.to_vec();
        self.answer(move |local| local.settle(&unsettled, at))
    }
}

fn fixture(how: How, positions: bool) -> Fixture {
    let store = ryw_testing::lagging::LaggingStore::builder().replicas(1).lag(Duration::from_secs(5)).start();
    let builder = RywLayer::builder().store(Remote { how, local: LocalStore::new() });
    let builder = builder.ladder(Ladder::new().wait(Duration::ZERO));
    let builder = if positions { builder.positions(store.topology().clone()) } else { builder };
    Fixture { app: values(store.clone()).layer(builder.build().unwrap()), store }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for() {
    let fixture = fixture(How::Slow, true);
    fixture.put("/v/a", &[session("me")], "1").await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!(read.body, "1");
    assert!(read.route().contains("reason=behind"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn with_positions_a_dead_store_costs_its_deadline_and_nothing_else() {
    for how in [How::Fails, How::Hangs] {
        let fixture = fixture(how, true);
        let started = tokio::time::Instant::now();
        let written = fixture.put("/v/a", &[session("me")], "1").await;
        assert_eq!(written.status, 204, "{how:?}: bookkeeping never fails a request");
        assert!(written.header("ryw-token").is_some(), "the token carries what the store did not take");
        assert_eq!(fixture.get("/v/a", &[session("me")]).await.body, "1");
        assert!(started.elapsed() < Duration::from_millis(250), "{how:?} {:?}", started.elapsed());
        tokio::time::sleep(Duration::from_secs(10)).await;
        let read = fixture.get("/v/a", &[session("me")]).await;
        assert_eq!(read.body, "1");
        assert!(read.route().starts_with("replica"), "{how:?}: not a stampede on the primary: {}", read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn without_positions_a_dead_store_means_the_primary() {
    for how in [How::Fails, How::Hangs] {
        let fixture = fixture(how, false);
        fixture.put("/v/a", &[session("me")], "1").await;
        let read = fixture.get("/v/a", &[session("me")]).await;
        assert_eq!(read.body, "1");
        assert!(read.route().starts_with("primary;reason=window"), "what this process knows itself: {}", read.route());
        let read = fixture.get("/v/a", &[session("other")]).await;
        assert!(read.route().starts_with("primary;reason=store-unavailable"), "{how:?} {}", read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_write_reaches_a_slow_store() {
    let fixture = fixture(How::Slow, true);
    let slow = axum::Router::new().route("/hang", axum::routing::post(|| async { pending::<()>().await }));
    let store = Remote { how: How::Slow, local: LocalStore::new() };
    let layer = RywLayer::builder().store(store).positions(fixture.store.topology().clone()).build().unwrap();
    let fixture = Fixture { app: slow.merge(values(fixture.store.clone())).layer(layer), store: fixture.store };
    let headers = [session("me")];
    let hanging = fixture.send("POST", "/hang", &headers, "");
    assert!(tokio::time::timeout(Duration::from_secs(1), hanging).await.is_err());
    tokio::time::sleep(Duration::from_millis(60)).await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert!(read.route().contains("reason=pending-write"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_marked_before_its_response_leaves() {
    let fixture = fixture(How::Slow, true);
    let local = LocalStore::new();
    let failing = axum::Router::new().route("/fail", axum::routing::post(|| async { http::StatusCode::BAD_GATEWAY }));
    let store = Remote { how: How::Slow, local: local.clone() };
    let layer = RywLayer::builder().store(store).positions(fixture.store.topology().clone()).build().unwrap();
    let fixture = Fixture { app: failing.layer(layer), store: fixture.store };
    fixture.send("POST", "/fail", &[session("me")], "").await;
    assert_eq!(local.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_marked_before_it_is_returned() {
    let topology = fixture(How::Slow, true).store.topology().clone();
    for how in [None, Some(How::Slow)] {
        let local = LocalStore::new();
        let builder = RywLayer::builder().positions(topology.clone());
        let builder = match how {
            None => builder.store(local.clone()),
            Some(how) => builder.store(Remote { how, local: local.clone() }),
        };
        let failing = tower::service_fn(|_: http::Request<axum::body::Body>| async {
            Err::<http::Response<axum::body::Body>, _>(std::io::Error::other("connection reset"))
        });
        let service = ServiceBuilder::new().layer(builder.build().unwrap()).service(failing);
        let mut serving = Box::pin(service.oneshot(request("POST", "/", &[session("me")], "")));
        // Kept until the end: whoever retries does so before it drops what has failed.
        (&mut serving).await.unwrap_err();
        assert_eq!(local.len(), 1, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_was_not_stored_is_told() {
    let fixture = fixture(How::Fails, true);
    let written = fixture.put("/v/a", &[session("me")], "1").await;
    assert_eq!(written.header("x-consistency-enforced"), Some("false"));
}
