//! The service and its worker, as a shell would start them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::{process::Stdio, time::Duration};

use ryw_client::{Session, reqwest::Client};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// For whatever must come: far beyond what it takes.
const DEADLINE: Duration = Duration::from_secs(60);
const JOBS: usize = 20;

/// Killed when dropped.
struct Service {
    url: String,
    _child: Child,
}

impl Service {
    /// Its replicas certainly lack what a test writes.
    async fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_job-queue"));
        command.args(["--listen", "127.0.0.1:0", "--lag-ms", "60000"]).args(options).env_clear().kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.expect("it says where it listens").unwrap().unwrap();
        Self { url: line.split(' ').next_back().unwrap().to_owned(), _child: child }
    }

    async fn write(&self, note: &str, text: String) {
        let session = Session::builder().id("me".parse().unwrap()).build().unwrap();
        let sent = Client::new(session).unwrap().put(format!("{}/notes/{note}", self.url)).body(text);
        let response = sent.timeout(DEADLINE).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }

    /// What the job has read, once it has run.
    async fn indexed(&self, note: &str) -> String {
        let client = Client::new(Session::new()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let response = client.get(format!("{}/index/{note}", self.url)).timeout(DEADLINE).send().await.unwrap();
            if response.status().is_success() {
                return response.text().await.unwrap();
            }
            assert!(Instant::now() < deadline, "the job does not run");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_job_sees_what_its_request_has_written_and_without_the_envelope_it_does_not() {
    for (options, stale) in [(&[][..], 0), (&["--drop-envelopes"], JOBS)] {
        let service = Service::start(options).await;
        let mut counted = 0;
        for number in 0..JOBS {
            let (note, text) = (format!("note-{number}"), format!("text {number}"));
            service.write(&note, text.clone()).await;
            counted += usize::from(service.indexed(&note).await != text);
        }
        assert_eq!(counted, stale, "{options:?}");
    }
}

#[tokio::test]
async fn a_write_of_nobody_starts_no_job() {
    let service = Service::start(&[]).await;
    let client = Client::new(Session::new()).unwrap();
    let response = client.put(format!("{}/notes/a", service.url)).body("text").timeout(DEADLINE).send().await.unwrap();
    assert_eq!(response.status(), 400);
}
