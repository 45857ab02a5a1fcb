use std::{
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use super::{ServerError, ServerErrorKind, wait::Deadline};

const LIMIT: Duration = Duration::from_secs(20);

/// The shell that ends a cluster's servers and removes its folder once our end of a pipe closes:
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
    /// Makes `folder` and watches over it, both by `script`: it gets the folder's path, says `made`,
    /// and cleans up at the end of its input.
    pub(super) fn create(folder: &Path, script: &str) -> Result<Self, ServerError> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", script, "ryw-supervisor"])
            .arg(folder)
            .env("LC_ALL", "C.UTF-8")
            // Neither Ctrl-C nor a test runner that ends our own group may reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            // Not inherited: a test runner waits until everybody closed the test's output.
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| ServerError::new(ServerErrorKind::Spawn, "cannot start /bin/sh").with_source(error))?;
        let pipe = process.stdin.take();
        let mut said = String::new();
        if let Some(mut stdout) = process.stdout.take() {
            // What is missing in it is the error.
            let _ = stdout.read_to_string(&mut said);
        }
        if said != "made\n" {
            drop(pipe);
            let _ = process.wait();
            let text =
                format!("cannot make the folder {}: set TMPDIR to a folder that can be written to", folder.display());
            let source = io::Error::other(said.trim_end().to_owned());
            return Err(ServerError::io(text, source));
        }
        Ok(Self { folder: folder.to_owned(), process, pipe })
    }

    /// The process group that each program of the cluster has to join. It is led by the shell.
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

#[cfg(test)]
mod tests {
    use std::env;

    use super::{super::ServerErrorKind, *};

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        for (name, script) in
            [("postgres", include_str!("postgres/supervisor.sh")), ("redis", include_str!("redis/supervisor.sh"))]
        {
            let folder = env::temp_dir().join(format!("ryw-foreign-{name}-{}", std::process::id()));
            fs::create_dir(&folder).unwrap();
            let error = Supervisor::create(&folder, script).unwrap_err();
            assert_eq!(error.kind(), ServerErrorKind::Io);
            assert!(folder.exists(), "{name}");
            fs::remove_dir(&folder).unwrap();
        }
    }
}
