//! The command line, as a shell would run it, against the real memory-gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// For whatever must come: far beyond what it takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// To build a gateway, where this test alone is run and there is none.
const BUILD: Duration = Duration::from_secs(590);

/// Killed when dropped.
struct Gateway {
    url: String,
    _child: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Gateway {
    /// Its replicas certainly lack what a test writes.
    async fn start() -> Self {
        let mut command = Command::new(binary().await);
        command.args(["--listen", "127.0.0.1:0", "--lag-ms", "60000"]).env_clear().kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, stdout.next_line()).await.expect("it says where it listens").unwrap().unwrap();
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { url, _child: child, _stdout: stdout }
    }
}

/// Another package's binary, next to this one's.
async fn binary() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_reqwest-client")).parent().unwrap();
    let binary = folder.join("memory-gateway");
    if !binary.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "-p", "memory-gateway"]).kill_on_drop(true);
        assert!(timeout(BUILD, build.status()).await.expect("it is built").unwrap().success());
    }
    binary
}

/// Whether it succeeded, and what it printed.
async fn run(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reqwest-client"));
    command.args(["--gateway", &gateway.url]).args(arguments).env_clear().kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.expect("it ends").unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn runs_with_one_file_are_one_session_and_without_it_reads_are_stale() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("me");
    let me = ["--session", file.to_str().unwrap()];
    for value in ["one", "two", "three"] {
        assert_eq!(run(&gateway, &[&me[..], &["put", "acme/note", value]].concat()).await, (true, String::new()));
        let read = run(&gateway, &[&me[..], &["get", "acme/note"]].concat()).await;
        assert_eq!(read, (true, format!("{value}\n")));
        let (found, said) = run(&gateway, &["get", "acme/note"]).await;
        assert!(!found && said.contains("404") && said.contains("served by replica"), "nothing was carried: {said}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_session() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("me");
    // What somebody has put in the way is not written to, nor what others may read.
    let elsewhere = folder.path().join("elsewhere");
    std::fs::write(&elsewhere, "kept").unwrap();
    symlink(&elsewhere, folder.path().join("me.new")).unwrap();
    for _ in 0..2 {
        let put = run(&gateway, &["--session", file.to_str().unwrap(), "put", "acme/note", "one"]).await;
        assert_eq!(put, (true, String::new()));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "kept");
}

#[tokio::test]
async fn another_gateway_is_not_told_of_the_session() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("me");
    let me = ["--session", file.to_str().unwrap()];
    run(&gateway, &[&me[..], &["put", "acme/note", "one"]].concat()).await;
    let nowhere = ["--gateway", "http://127.0.0.1:1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_reqwest-client"));
    command.args(nowhere).args(me).args(["put", "acme/note", "two"]).env_clear().kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.expect("it ends").unwrap();
    assert!(!output.status.success());
    // That host is not the session's: it has been told nothing, and nothing is in doubt.
    assert!(!std::fs::read_to_string(&file).unwrap().contains("~?"));
    let read = run(&gateway, &[&me[..], &["get", "acme/note"]].concat()).await;
    assert_eq!(read, (true, "one\n".into()));
}

#[tokio::test]
async fn a_file_that_holds_no_session_is_told() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("me");
    std::fs::write(&file, "a shopping list").unwrap();
    let (ran, said) = run(&gateway, &["--session", file.to_str().unwrap(), "get", "acme/note"]).await;
    assert!(!ran && said.contains("holds no session"), "{said}");
}
