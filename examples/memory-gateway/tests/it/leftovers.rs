//! However the gateway ends, the servers that it has started end too, and so does their folder.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    gateway::Gateway,
    program::{DEADLINE, command},
};

/// A folder for one program's temporary files, so that what is found in it is that program's.
#[derive(Debug)]
pub(crate) struct Playground(TempDir);

impl Playground {
    pub(crate) fn new() -> Self {
        // The servers' user has to enter it as well.
        let open = fs::Permissions::from_mode(0o755);
        Self(tempfile::Builder::new().prefix("ryw-it-").permissions(open).tempdir().unwrap())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("TMPDIR", self.0.path());
        command
    }

    pub(crate) async fn assert_empty(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (files, processes) = (self.files(), self.processes());
            if files.is_empty() && processes.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {files:?}, {processes:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Command lines of the processes that work in this folder or are named after it: servers change into their data
    /// directory.
    fn processes(&self) -> Vec<String> {
        let folder = self.0.path();
        let of_folder = |process: &Path| {
            let line = fs::read(process.join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let inside = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            (inside || line.contains(folder.to_str()?)).then_some(line)
        };
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| of_folder(&entry.path())).collect()
    }

    fn servers(&self) -> usize {
        self.processes().iter().filter(|line| line.contains("/postgres -D ")).count()
    }
}

fn signal(pid: Option<u32>, signal: Signal) {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn a_terminated_service_takes_its_servers_along() {
    let playground = Playground::new();
    let command = playground.command(&["--listen", "127.0.0.1:0", "--postgres"]);
    let mut gateway = Gateway::from(command).await;
    gateway.put("/v1/memory/acme/key", &[("x-session-id", "me")], "value").await;
    assert_eq!(playground.servers(), 3, "{:?}", playground.processes());

    signal(gateway.child.id(), Signal::TERM);

    let status = timeout(DEADLINE, gateway.child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    playground.assert_empty().await;
}

#[tokio::test]
async fn a_killed_service_takes_its_servers_along() {
    let playground = Playground::new();
    let gateway = Gateway::from(playground.command(&["--listen", "127.0.0.1:0", "--postgres"])).await;
    assert_eq!(playground.servers(), 3, "{:?}", playground.processes());

    signal(gateway.child.id(), Signal::KILL);

    playground.assert_empty().await;
}

#[tokio::test]
async fn a_service_that_is_terminated_while_it_starts_leaves_nothing() {
    let playground = Playground::new();
    let mut child = playground.command(&["--listen", "127.0.0.1:0", "--postgres"]).spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while playground.servers() == 0 {
        assert!(Instant::now() < deadline, "no server was started");
        sleep(Duration::from_millis(5)).await;
    }

    signal(child.id(), Signal::TERM);

    timeout(DEADLINE, child.wait()).await.expect("it ends").unwrap();
    playground.assert_empty().await;
}
