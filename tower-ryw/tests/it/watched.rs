//! What those who look at a layer from time to time are told.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::any};
use parking_lot::Mutex;
use ryw_core::{Keyring, Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey};
use ryw_core::{Unsettled, Update};
use tokio::time::{advance, sleep};
use tower::ServiceExt;
use tower_ryw::{Observe, Refused, Routed, RywLayer};

use crate::harness::{answer, request, session};

const DEADLINE: Duration = Duration::from_millis(100);

/// A store that answers as it is told: in time, with an error, or never.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Does>>);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Does {
    #[default]
    Answer,
    Fail(StoreErrorKind),
    Hang,
}

impl Told {
    fn does<T: Default + Unpin + Send + 'static>(&self) -> StoreFuture<T> {
        match *self.0.lock() {
            Does::Answer => StoreFuture::ready(T::default()),
            Does::Fail(kind) => StoreFuture::failed(StoreError::new(kind)),
            Does::Hang => StoreFuture::boxed(std::future::pending()),
        }
    }
}

impl MarkStore for Told {
    fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
        self.does()
    }

    fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
        self.does()
    }

    fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
        self.does()
    }

    fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
        self.does()
    }
}

/// What an observer was told: whether each request was achieved, refusals, conflicts.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<String>>);

impl Observe for Seen {
    fn routed(&self, event: &Routed<'_>) {
        self.0.lock().push(format!("achieved {}", event.achieved));
    }

    fn refused(&self, why: Refused) {
        self.0.lock().push(format!("refused {}", why.word()));
    }

    fn conflicted(&self) {
        self.0.lock().push("conflict".to_owned());
    }
}

fn layer(store: &Told, seen: &Arc<Seen>) -> RywLayer {
    let builder = RywLayer::builder().store(store.clone()).store_deadline(DEADLINE).observer(Arc::clone(seen));
    builder.signing_keys(Keyring::random().unwrap()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_nobody_uses_is_asked_by_whoever_looks() {
    let store = Told::default();
    let layer = layer(&store, &Arc::default());
    assert_eq!(layer.store_health().unwrap().heard, None, "nobody has asked it yet");
    assert_eq!(layer.ask_store().await.unwrap().heard, Some(Duration::ZERO));
    advance(Duration::from_millis(900)).await;
    *store.0.lock() = Does::Hang;
    assert_eq!(layer.ask_store().await.unwrap().away, None, "it was heard of a moment ago");
    advance(Duration::from_millis(200)).await;
    let asked = tokio::time::Instant::now();
    assert!(layer.ask_store().await.unwrap().away.is_some());
    assert!(asked.elapsed() <= DEADLINE, "{:?}", asked.elapsed());
    // From now on one task asks, and nobody waits for it.
    assert!(layer.ask_store().await.unwrap().heard >= Some(Duration::from_secs(1)));
    *store.0.lock() = Does::Answer;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(layer.ask_store().await.unwrap().away, None);
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_what_the_answer_says() {
    let (store, seen) = (Told::default(), Arc::<Seen>::default());
    let layer = layer(&store, &seen);
    let app = Router::new().route("/", any(|| async { StatusCode::OK })).layer(layer);
    for (does, expected) in [(Does::Answer, "true"), (Does::Fail(StoreErrorKind::Corrupt), "false")] {
        *store.0.lock() = does;
        let written = answer(app.clone().oneshot(request("POST", "/", &[session("me")], "")).await).await;
        assert_eq!(written.header("x-consistency-enforced"), Some(expected), "{does:?}: {written:?}");
        assert_eq!(seen.0.lock().pop().unwrap(), format!("achieved {expected}"), "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_those_of_writes() {
    let (store, seen) = (Told::default(), Arc::<Seen>::default());
    let layer = layer(&store, &seen);
    for (method, status, conflicts) in [
        ("PUT", StatusCode::CONFLICT, 1),
        ("PUT", StatusCode::PRECONDITION_FAILED, 1),
        ("PUT", StatusCode::NOT_FOUND, 0),
        ("PUT", StatusCode::OK, 0),
        ("GET", StatusCode::CONFLICT, 0),
    ] {
        let before = layer.stats().snapshot().conflicts;
        let app = Router::new().route("/", any(move || async move { status })).layer(layer.clone());
        answer(app.oneshot(request(method, "/", &[session("me")], "")).await).await;
        assert_eq!(layer.stats().snapshot().conflicts - before, conflicts, "{method} {status}");
    }
    assert_eq!(seen.0.lock().iter().filter(|told| *told == "conflict").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_by_kind() {
    let (store, seen) = (Told::default(), Arc::<Seen>::default());
    let app = Router::new().route("/", any(|| async { "" })).layer(layer(&store, &seen));
    let headers = [session("me"), ("x-consistency-level", "more than anything")];
    let refused = answer(app.oneshot(request("GET", "/", &headers, "")).await).await;
    assert_eq!((refused.status, seen.0.lock().join(",")), (StatusCode::BAD_REQUEST, "refused invalid".to_owned()));
}
