use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use super::wait::Deadline;

const SCRIPT: &str = include_str!("supervisor.sh");
const LIMIT: Duration = Duration::from_secs(20);

/// The process that ends a cluster's servers and removes its folder once our end of a pipe closes:
/// by [`release`](Self::release), by dropping, or by the death of this process.
///
/// An orderly end takes the same way as a killed one, so that every test also tests the latter.
#[derive(Debug)]
pub(super) struct Supervisor {
    folder: PathBuf,
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Supervisor {
    pub(super) fn watch(folder: &Path) -> io::Result<Self> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "ryw-postgres-supervisor"])
            .arg(folder)
            // Neither Ctrl-C nor a test runner that ends our own group may reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            // Not inherited: a test runner waits until everybody closed the test's output.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = process.stdin.take();
        Ok(Self { folder: folder.to_owned(), process, pipe })
    }

    /// The process group that each program of the cluster has to join.
    pub(super) fn group(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// Starts the clean-up, and returns when it is done. `reap` is called over and over: to the
    /// supervisor, a server that ended but was not waited for looks alive.
    pub(super) fn release(&mut self, mut reap: impl FnMut()) {
        drop(self.pipe.take());
        let deadline = Deadline::after(LIMIT);
        while let Ok(None) = self.process.try_wait() {
            reap();
            if !deadline.sleep(Duration::from_millis(5)) {
                break;
            }
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.release(|| {});
        // In case somebody killed the supervisor.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
