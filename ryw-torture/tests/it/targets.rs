//! Services that are not ours, in this process: one that keeps its promises, and one that shows old data.

use std::{
    collections::HashMap,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use parking_lot::Mutex;

/// Lists, of which every so many reads shows what was there before the last write.
#[derive(Clone, Debug, Default)]
struct Lists {
    lists: Arc<Mutex<HashMap<String, Vec<i64>>>>,
    reads: Arc<AtomicU64>,
    stale: Option<u64>,
}

async fn append(State(lists): State<Lists>, Path(key): Path<String>, value: String) {
    lists.lists.lock().entry(key).or_default().push(value.parse().unwrap());
}

async fn read(State(lists): State<Lists>, Path(key): Path<String>) -> Json<Vec<i64>> {
    let mut list = lists.lists.lock().get(&key).cloned().unwrap_or_default();
    let read = lists.reads.fetch_add(1, Relaxed);
    if lists.stale.is_some_and(|every| read % every == every - 1) {
        list.pop();
    }
    Json(list)
}

async fn driven(stale: Option<u64>) -> Output {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/list/{key}", get(read).post(append));
    let service =
        tokio::spawn(axum::serve(listener, app.with_state(Lists { stale, ..Lists::default() })).into_future());
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_owned();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ryw-torture"));
        command.args(["--seconds", "2", "--sessions", "8", "--min-ops", "100", "--target", &target, "--out"]);
        command.arg(folder).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    service.abort();
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_keeps_its_promises_is_clean() {
    let output = driven(None).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_shows_old_data_is_violated() {
    let output = driven(Some(50)).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn silence_is_void_and_what_is_no_url_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let run = |target: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ryw-torture"));
        command.args(["--seconds", "1", "--sessions", "8", "--target", target, "--out"]);
        command.arg(out.path()).output().unwrap()
    };
    // A port that is free once it is given back.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    let unanswered = run(&format!("http://{address}"));
    assert_eq!(unanswered.status.code(), Some(3), "{unanswered:?}");
    let floor = Command::new(env!("CARGO_BIN_EXE_ryw-torture")).args(["--min-rate", "NaN"]).output().unwrap();
    assert_eq!(floor.status.code(), Some(2), "{floor:?}");
    let wrong = run("foo");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("http://HOST:PORT"), "{wrong:?}");
}
