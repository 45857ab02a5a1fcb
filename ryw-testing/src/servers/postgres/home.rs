use std::{
    env, fs,
    io::{self, Read},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use super::{ServerError, ServerErrorKind, folder::new_folder, supervisor::Supervisor, user::User, wait::Deadline};

const CLEAN_UP: &str = include_str!("supervisor.sh");

/// Where and as whom a cluster's programs run.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    bin: PathBuf,
    user: Option<User>,
    group: i32,
    pub(super) timeout: Duration,
}

impl Home {
    pub(super) fn create(bin: PathBuf, timeout: Duration) -> Result<(Self, Supervisor), ServerError> {
        let user = User::for_servers()?;
        let folder = new_folder("postgres")?;
        let supervisor = Supervisor::create(&folder, CLEAN_UP)?;
        let home = Self { folder, bin, user, group: supervisor.group(), timeout };
        home.give(&home.folder)?;
        Ok((home, supervisor))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the servers' user the owner of `path`.
    pub(super) fn give(&self, path: &Path) -> Result<(), ServerError> {
        let Some(User { name, uid, gid }) = &self.user else {
            return Ok(());
        };
        chown(path, Some(*uid), Some(*gid))
            .map_err(|error| ServerError::io(format!("cannot give {} to {name}", path.display()), error))
    }

    /// Writes a file that belongs to the servers' user.
    pub(super) fn write(&self, file: &Path, text: &str) -> Result<(), ServerError> {
        fs::write(file, text).map_err(|error| cannot_write(file, error))?;
        self.give(file)
    }

    /// A program of PostgreSQL, or one on `PATH`, ready to be given arguments.
    pub(super) fn command(&self, program: &str) -> Command {
        let own = self.bin.join(program);
        let mut command = Command::new(if own.exists() { &own } else { Path::new(program) });
        // Nothing of the caller's PGPORT, PGDATA, PGHOST, PGOPTIONS, ... may leak in.
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.folder)
            .env("TMPDIR", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("PGCONNECT_TIMEOUT", "5")
            .current_dir(&self.folder)
            .process_group(self.group)
            .stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Runs `command` to its end and returns its status, output and error output.
    pub(super) fn run(&self, mut command: Command) -> Result<Finished, ServerError> {
        let deadline = Deadline::after(self.timeout);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.cannot_spawn(&command, error))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            // Read while it runs: a full pipe would block it.
            let stdout = scope.spawn(|| read(stdout));
            let stderr = scope.spawn(|| read(stderr));
            let status = loop {
                match child.try_wait() {
                    Ok(Some(status)) => break Some(status),
                    Ok(None) if deadline.sleep(Duration::from_millis(2)) => {}
                    _ => break None,
                }
            };
            if status.is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
            let stdout = stdout.join().unwrap_or_default();
            let stderr = stderr.join().unwrap_or_default();
            match status {
                Some(status) => Ok(Finished { status, stdout, stderr }),
                None => Err(ServerError::new(
                    ServerErrorKind::Timeout,
                    format!("{} did not end within {:?}", command.get_program().display(), self.timeout),
                )
                .with_log(stderr)),
            }
        })
    }

    /// Like [`run`](Self::run), for a command that must succeed.
    pub(super) fn run_ok(&self, command: Command) -> Result<(), ServerError> {
        let program = command.get_program().to_owned();
        let finished = self.run(command)?;
        if finished.status.success() {
            return Ok(());
        }
        let text = format!("{} failed with {}", program.display(), finished.status);
        Err(ServerError::new(ServerErrorKind::Exited, text).with_log(finished.stderr))
    }

    pub(super) fn cannot_spawn(&self, command: &Command, error: io::Error) -> ServerError {
        let program = command.get_program().display();
        let text = match (error.kind(), &self.user) {
            // Root itself may enter a folder that the servers' user may not.
            (io::ErrorKind::PermissionDenied, Some(User { name, .. })) => format!(
                "cannot start {program} as the user {name}: let it run that program and enter {} \
                 (TMPDIR chooses another place)",
                self.folder.display()
            ),
            _ => format!("cannot start {program}"),
        };
        ServerError::new(ServerErrorKind::Spawn, text).with_source(error)
    }
}

pub(super) fn cannot_write(file: &Path, error: io::Error) -> ServerError {
    ServerError::io(format!("cannot write {}", file.display()), error)
}

#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

fn read(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read until an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
