//! A client that leaves at any moment: whatever the handler had written by then is seen afterwards.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Waker},
};

use axum::{Router, extract::Path, routing::post};
use http::StatusCode;
use ryw_testing::lagging::LaggingStore;
use tower::Service;

use crate::harness::{Fixture, request, session, values, with_positions, with_window};

/// How often the handler can be cut short around its write.
const STEPS: usize = 4;

/// What the handler ends with, where it is not cut short.
const ENDS: [&str; 3] = ["ok", "error", "panic"];

/// A handler that awaits several times before and after its write.
fn writing(store: LaggingStore, written: Arc<AtomicUsize>) -> Router {
    let handler = move |Path((ends, value)): Path<(String, String)>| async move {
        for _ in 0..STEPS {
            tokio::task::yield_now().await;
        }
        store.put("t", "a", Some(value.into())).unwrap();
        written.fetch_add(1, SeqCst);
        for _ in 0..STEPS {
            tokio::task::yield_now().await;
        }
        match ends.as_str() {
            "ok" => StatusCode::NO_CONTENT,
            "error" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => std::panic::resume_unwind(Box::new("as asked for")),
        }
    };
    Router::new().route("/write/{ends}/{value}", post(handler))
}

/// Polls the request so often and then drops it. Returns whether it had been answered, or had panicked, by then.
async fn poll_and_drop(app: &mut Router, ends: &str, name: &str, polls: usize) -> bool {
    let call = Service::call(app, request("POST", &format!("/write/{ends}/{name}"), &[session(name)], ""));
    let mut call = pin!(call);
    for _ in 0..polls {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        if !polled.is_ok_and(|answer| answer.is_pending()) {
            return true;
        }
        // Let watchers and others get on.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    false
}

async fn every_point(fixture: Fixture, layer: tower_ryw::RywLayer, ends: &str) -> (usize, usize) {
    let written = Arc::new(AtomicUsize::new(0));
    let app = writing(fixture.store.clone(), Arc::clone(&written)).merge(values(fixture.store.clone())).layer(layer);
    // What the store does not know is fresh: only a mark of its own makes a session see its write.
    let mut fixture = Fixture { app, ..fixture }.settled().await;
    let (mut cut_after_write, mut polls) = (0, 0);
    loop {
        let before = written.load(SeqCst);
        let name = format!("poll-{polls}");
        let answered = poll_and_drop(&mut fixture.app, ends, &name, polls).await;
        let wrote = written.load(SeqCst) > before;
        let read = fixture.get("/v/a", &[session(&name)]).await;
        if wrote {
            assert_eq!(read.body, name, "dropped after {polls} polls: {}", read.route());
            cut_after_write += usize::from(!answered);
        }
        if answered {
            return (cut_after_write, polls);
        }
        polls += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn at_every_await_point_with_positions() {
    for ends in ENDS {
        let fixture = with_positions(|b| b);
        let ladder = tower_ryw::Ladder::new().wait(std::time::Duration::ZERO);
        let layer = tower_ryw::RywLayer::builder().positions(fixture.store.topology().clone()).ladder(ladder);
        let (cut, polls) = every_point(fixture, layer.build().unwrap(), ends).await;
        // The last points of a success are those at which the response is held back until its position is known.
        let held_back = usize::from(ends == "ok");
        assert!(cut >= STEPS + held_back, "{ends}: cut short after the write at {cut} points of {polls}");
        assert!(polls >= 2 * STEPS + held_back, "{ends}: {polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_every_await_point_without_positions() {
    for ends in ENDS {
        let fixture = with_window(|b| b);
        // Past the window in which a new store holds everybody.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let layer = tower_ryw::RywLayer::builder()
            .store(tower_ryw::LocalStore::builder().held_at_start(std::time::Duration::from_millis(1)).build());
        let layer = layer.build().unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let (cut, polls) = every_point(fixture, layer, ends).await;
        assert!(cut >= STEPS && polls >= 2 * STEPS, "{ends}: cut short after the write at {cut} points of {polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_dropped_leaves_nothing() {
    let fixture = with_positions(|b| b).settled().await;
    let mut app = fixture.app.clone();
    {
        let call = Service::call(&mut app, request("GET", "/v/a", &[session("reader")], ""));
        let mut call = pin!(call);
        let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    let read = fixture.get("/v/a", &[session("reader")]).await;
    assert!(read.route().starts_with("replica"), "{}", read.route());
}
