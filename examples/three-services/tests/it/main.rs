//! The three services as a shell would start them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::{process::Stdio, time::Duration};

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// For whatever must come: far beyond what it takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// One of the services. Killed when dropped.
struct Service {
    url: String,
    _child: Child,
}

impl Service {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_three-services"));
        command.args(arguments).args(["--listen", "127.0.0.1:0"]).env_clear().kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.expect("it says where it listens").unwrap().unwrap();
        Self { url: line.split(' ').next_back().unwrap().to_owned(), _child: child }
    }
}

struct Chain {
    a: Service,
    b: Service,
    c: Service,
}

impl Chain {
    /// c's replicas certainly lack what a test writes.
    async fn start(options_of_b: &[&str]) -> Self {
        let c = Service::start(&["c", "--lag-ms", "60000"]).await;
        let b = Service::start(&[&["b", "--next", &c.url], options_of_b].concat()).await;
        let a = Service::start(&["a", "--next", &b.url]).await;
        Self { a, b, c }
    }
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    token: Option<String>,
    text: Bytes,
}

async fn call(method: &str, service: &Service, note: &str, token: Option<&str>) -> Reply {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(method).uri(format!("{}/{note}", service.url));
    if let Some(token) = token {
        request = request.header("ryw-token", token);
    }
    let body = if method == "PUT" { "fresh" } else { "" };
    let sent = client.request(request.body(Full::new(body.into())).unwrap());
    let (parts, body) = timeout(DEADLINE, sent).await.expect("it answers").unwrap().into_parts();
    let token = parts.headers.get("ryw-token").map(|token| token.to_str().unwrap().to_owned());
    Reply { status: parts.status, token, text: body.collect().await.unwrap().to_bytes() }
}

#[tokio::test]
async fn what_was_written_at_the_end_is_seen_through_the_whole_chain() {
    let Chain { a, b, c } = Chain::start(&[]).await;
    // Known, so that nobody is held to what the primary has because it is unknown.
    for service in [&a, &b, &c] {
        call("GET", service, "other", None).await;
    }
    for (number, writer) in [&c, &b, &a].into_iter().enumerate() {
        let note = format!("note-{number}");
        let written = call("PUT", writer, &note, None).await;
        assert_eq!(written.status, StatusCode::NO_CONTENT, "{written:?}");
        let token = written.token.expect("a token");
        for reader in [&a, &b, &c] {
            let read = call("GET", reader, &note, Some(&token)).await;
            assert_eq!((read.status, &*read.text), (StatusCode::OK, &b"fresh"[..]), "written through {number}");
            let stale = call("GET", reader, &note, None).await;
            assert_eq!(stale.status, StatusCode::NOT_FOUND, "nothing was carried: {stale:?}");
        }
    }
}

#[tokio::test]
async fn one_service_that_carries_nothing_breaks_the_chain() {
    let Chain { a, b, c } = Chain::start(&["--carry-nothing"]).await;
    let token = call("PUT", &c, "note", None).await.token.expect("a token");
    for (reader, expected) in [(&a, StatusCode::NOT_FOUND), (&b, StatusCode::NOT_FOUND), (&c, StatusCode::OK)] {
        let read = call("GET", reader, "note", Some(&token)).await;
        assert_eq!(read.status, expected, "{read:?}");
    }
}
