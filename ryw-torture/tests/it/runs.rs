//! Short runs: each verdict, and nothing left behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// A folder for results, and one for what has to be gone afterwards.
struct Folders {
    _all: tempfile::TempDir,
    out: PathBuf,
    temporary: PathBuf,
}

fn torture(seed: &str, arguments: &[&str]) -> (Command, Folders) {
    let all = tempfile::tempdir().unwrap();
    // The servers' user has to get through.
    fs::set_permissions(all.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (out, temporary) = (all.path().join("out"), all.path().join("temporary"));
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ryw-torture"));
    command.args(["--sessions", "8", "--seed", seed, "--out"]).arg(&out).args(arguments).env("TMPDIR", &temporary);
    (command, Folders { _all: all, out, temporary })
}

fn run(arguments: &[&str]) -> (Output, Folders) {
    let (mut command, folders) = torture("1", arguments);
    let output = command.output().unwrap();
    folders.assert_empty();
    (output, folders)
}

impl Folders {
    /// Nothing of it is left behind: no file, and no process, each of which has been told the folder.
    fn assert_empty(&self) {
        assert_eq!((self.files(), self.processes()), (0, 0), "something was left behind");
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.temporary).unwrap().count()
    }

    fn processes(&self) -> usize {
        let folder = self.temporary.to_str().unwrap().as_bytes();
        let told = |process: &fs::DirEntry| {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            environment.windows(folder.len()).any(|part| part == folder)
        };
        fs::read_dir("/proc").unwrap().filter(|process| process.as_ref().is_ok_and(told)).count()
    }
}

#[test]
fn a_run_is_clean_and_says_so_in_files() {
    let (output, folders) =
        run(&["--seconds", "8", "--failovers", "1", "--min-failovers", "1", "--min-temptations", "1"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("verdict: clean"), "{printed}");
    let text = |name| fs::read_to_string(folders.out.join(name)).unwrap();
    assert!(text("plan.txt").starts_with("lossy failover"));
    assert!(text("timeline.svg").contains("lossy failover"));
    let summary: serde_json::Value = serde_json::from_str(&text("summary.json")).unwrap();
    assert_eq!((&summary["verdict"], &summary["faults"]["lossy failover"]), (&"clean".into(), &1.into()));
    assert!(summary["control"].as_u64().unwrap() > 0, "{summary}");
}

#[test]
fn a_run_past_the_layer_is_stopped_and_violated() {
    let (output, _folders) = run(&["--seconds", "30", "--failovers", "0", "--bypass"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("the check that goes along stopped the run"), "{printed}");
    assert!(printed.contains("RYW session"), "the checker finds it as well: {printed}");
}

/// Reads that waited in vain are served all the same, and found out while a standby is paused: it has to go on for the end to be read.
#[test]
fn what_is_found_while_something_is_broken_is_told_when_it_is_whole_again() {
    let (mut command, folders) = torture("55", &["--seconds", "30", "--failovers", "0"]);
    let output = command.env("RYW_SEEDED_BUG", "timeout_open").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("the check that goes along stopped the run"), "{printed}");
    assert!(fs::read_to_string(folders.out.join("plan.txt")).unwrap().starts_with("replay pause"));
    folders.assert_empty();
}

#[test]
fn a_run_below_its_floors_is_void() {
    let (output, _folders) = run(&["--seconds", "3", "--failovers", "0", "--min-failovers", "1"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("below the floor: fault failover: 0 of 1"), "{printed}");
}

/// A run that has got to its load.
fn started() -> (Child, Folders) {
    let (mut command, folders) = torture("1", &["--seconds", "600", "--failovers", "0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "seed 1\n");
    while !folders.out.join("history.jsonl").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // The servers, their supervisors, the instances and itself.
    assert!(folders.processes() > 6 && folders.files() > 1);
    (child, folders)
}

#[test]
fn a_run_that_is_ended_leaves_nothing_behind() {
    let (mut child, folders) = started();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    folders.assert_empty();
}

#[test]
fn a_run_that_is_killed_leaves_nothing_behind() {
    let (mut child, folders) = started();
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever cleans up after it needs a moment.
    for _ in 0..3000 {
        if folders.files() + folders.processes() == 0 {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    folders.assert_empty();
}
