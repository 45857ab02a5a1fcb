//! The service and its client, as a shell would start them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// For whatever must come: far beyond what it takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Killed when dropped.
struct Service {
    url: String,
    _child: Child,
}

impl Service {
    /// Its replicas certainly lack what a test writes.
    async fn start() -> Self {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--lag-ms", "60000"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.expect("it says where it listens").unwrap().unwrap();
        Self { url: line.split(' ').next_back().unwrap().to_owned(), _child: child }
    }

    /// What the client printed, or said when it failed.
    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = program();
        command.args(["--service", &self.url]).args(arguments);
        let output = timeout(DEADLINE, command.output()).await.expect("it ends").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpc-notes"));
    command.env_clear().kill_on_drop(true);
    command
}

#[tokio::test]
async fn runs_with_one_file_are_one_session_and_without_it_reads_are_stale() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("me");
    let me = ["--session", file.to_str().unwrap()];
    for text in ["one", "two", "three"] {
        service.run(&[&me[..], &["put", "note", text]].concat()).await.unwrap();
        assert_eq!(service.run(&[&me[..], &["get", "note"]].concat()).await, Ok(format!("{text}\n")));
        let stale = service.run(&["get", "note"]).await.unwrap_err();
        assert!(stale.contains("there is no note"), "nothing was carried: {stale}");
    }
}

/// Of what the file holds it is the token that does it.
#[tokio::test]
async fn the_token_alone_is_enough_and_the_empty_session_is_not() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("me");
    let me = ["--session", file.to_str().unwrap()];
    service.run(&[&me[..], &["put", "note", "text"]].concat()).await.unwrap();
    let saved = std::fs::read_to_string(&file).unwrap();
    let mut parts: Vec<_> = saved.trim_end().split(';').collect();
    assert!(parts[1].len() == 32 && parts[2].len() > 40, "a name and a token: {saved}");
    parts[1] = "";
    std::fs::write(&file, parts.join(";")).unwrap();
    assert_eq!(service.run(&[&me[..], &["get", "note"]].concat()).await, Ok("text\n".into()));
    parts[2] = "";
    std::fs::write(&file, parts.join(";")).unwrap();
    assert!(service.run(&[&me[..], &["get", "note"]].concat()).await.is_err());
}
