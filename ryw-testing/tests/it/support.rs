//! What the tests of all kinds of servers need.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Polls for at most 10 s.
pub(crate) fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Those processes of the machine whose command line or working directory names `folder`.
pub(crate) fn processes_of(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let place = fs::read_link(process.join("cwd")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(folder) || place.to_string_lossy().contains(folder)
        })
        .collect()
}

pub(crate) fn assert_gone(folder: &Path) {
    soon("the folder is removed", || !folder.exists());
    soon("the processes are gone", || processes_of(folder).is_empty());
}

/// A folder for the temporary files of an [`Owner`].
pub(crate) struct Temp(pub(crate) PathBuf);

impl Temp {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ryw-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Copy)]
pub(crate) enum To {
    Process,
    Group,
}

/// This test program once more, in a process that can be killed.
pub(crate) struct Owner(Child, BufReader<ChildStderr>);

const ROLE: &str = "RYW_TEST_OWNER";

/// What this process has to do, if it is that of an [`Owner`].
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

impl Owner {
    /// Runs the test `test`, which has to do what its [`role`] is.
    pub(crate) fn start(test: &str, role: &str, temp: &Temp, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(ROLE, role)
            .process_group(0)
            .env("TMPDIR", &temp.0)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self(child, stderr)
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn error(mut self) -> String {
        let text = std::io::read_to_string(&mut self.1).unwrap();
        self.0.wait().unwrap();
        text
    }

    pub(crate) fn end(&mut self, signal: &str, to: To) {
        let target = match to {
            To::Process => self.0.id().to_string(),
            To::Group => format!("-{}", self.0.id()),
        };
        let status = Command::new("/bin/sh").args(["-c", "kill -s \"$0\" -- \"$1\"", signal, &target]).status();
        assert!(status.unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
