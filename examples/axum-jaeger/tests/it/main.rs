//! Both services as a shell would start them, and a real receiver of OTLP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod receiver;

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::receiver::{Receiver, Seen};

/// For whatever must come: far beyond what it takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// One of the services. Killed when dropped.
struct Service {
    child: Child,
    url: String,
}

impl Service {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_axum-jaeger"));
        // Spans leave every second, and with the service.
        command.args(arguments).env_clear().env("OTEL_BSP_SCHEDULE_DELAY", "1000").kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.expect("it says where it listens").unwrap().unwrap();
        let url = line.split(' ').next_back().unwrap().to_owned();
        Self { child, url }
    }
}

#[tokio::test]
async fn one_trace_shows_the_write_its_mark_and_the_read_in_another_service() {
    let receiver = Receiver::start().await;
    let notes = Service::start(&["--otlp", &receiver.url, "notes", "--listen", "127.0.0.1:0"]).await;
    let mut front =
        Service::start(&["--otlp", &receiver.url, "front", "--listen", "127.0.0.1:0", "--notes", &notes.url]).await;

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = http::Request::post(format!("{}/greeting", front.url)).header("x-session-id", "me");
    let response = client.request(request.body(Full::new("hello".into())).unwrap()).await.unwrap();
    assert!(response.headers().contains_key("ryw-token"), "{response:?}");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");

    // The front: its request, the layer's span, and the two calls.
    let root = receiver.span("front", "POST /greeting", |_| true).await;
    assert_eq!((root.attribute("http.response.status_code"), root.parent.len()), (Some("200".into()), 0), "{root:?}");
    let layer = receiver.span("front", "ryw", child_of(&root)).await;
    let put = receiver.span("front", "PUT", child_of(&layer)).await;
    let get = receiver.span("front", "GET", child_of(&layer)).await;

    // The notes, in the same trace, below the calls.
    let put = receiver.span("notes", "PUT /greeting", child_of(&put)).await;
    let get = receiver.span("notes", "GET /greeting", child_of(&get)).await;
    let write = receiver.span("notes", "ryw", child_of(&put)).await;
    let read = receiver.span("notes", "ryw", child_of(&get)).await;
    for (span, expected) in [
        (
            &write,
            &[("ryw.intent", "write"), ("ryw.route", "primary"), ("ryw.reason", "write"), ("ryw.outcome", "written")][..],
        ),
        (&read, &[("ryw.intent", "read"), ("ryw.level", "RYW"), ("ryw.achieved", "true"), ("ryw.epoch", "1")]),
    ] {
        for (name, value) in expected {
            assert_eq!(span.attribute(name).as_deref(), Some(*value), "{name} of {span:?}");
        }
    }
    // The mark that the one has made is what the other had to see.
    assert_eq!(write.attribute("ryw.recorded"), read.attribute("ryw.required"), "{write:?} {read:?}");
    receiver.span("notes", "query", child_of(&read)).await;
    receiver.span("notes", "ryw.record", child_of(&write)).await;
    let all = receiver.all();
    assert!(all.iter().all(|span| span.trace == root.trace), "{all:#?}");

    // What has not left yet leaves with the service.
    let request = http::Request::post(format!("{}/late", front.url)).body(Full::new("bye".into())).unwrap();
    client.request(request).await.unwrap();
    let pid = front.child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(timeout(DEADLINE, front.child.wait()).await.expect("it ends").unwrap().success());
    receiver.span("front", "POST /late", |_| true).await;
}

#[tokio::test]
async fn without_a_collector_there_is_one_line_that_says_so() {
    // Bound and never listening, so that nothing else answers there.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let otlp = format!("http://{nowhere}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_axum-jaeger"));
    command.args(["--otlp", &otlp, "notes", "--listen", "127.0.0.1:0"]).env_clear();
    command.env("OTEL_BSP_SCHEDULE_DELAY", "10").kill_on_drop(true).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, stdout.next_line()).await.expect("it says where it listens").unwrap().unwrap();
    let url = line.split(' ').next_back().unwrap().to_owned();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let ask = async || {
        let request = http::Request::get(format!("{url}/greeting")).body(Full::<Bytes>::default()).unwrap();
        client.request(request).await.unwrap();
    };
    ask().await;
    let line = timeout(DEADLINE, stderr.next_line()).await.expect("it says that spans are lost").unwrap().unwrap();
    assert!(line.contains(&otlp) && line.contains("is a collector there?"), "{line}");
    ask().await;
    let pid = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    timeout(DEADLINE, child.wait()).await.expect("it ends").unwrap();
    let again = timeout(DEADLINE, stderr.next_line()).await.unwrap().unwrap();
    assert!(!again.as_deref().unwrap_or_default().contains("could not be sent"), "once: {again:?}");
}

fn child_of(parent: &Seen) -> impl Fn(&Seen) -> bool + use<> {
    let (trace, id) = (parent.trace.clone(), parent.id.clone());
    move |span| span.trace == trace && span.parent == id
}
