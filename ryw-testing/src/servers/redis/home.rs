use std::{
    env, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{ServerError, ServerErrorKind, folder::new_folder, server_program, supervisor::Supervisor};

const CLEAN_UP: &str = include_str!("supervisor.sh");

/// Where the servers of one set run. With the last of them it goes, and the folder with it.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    program: PathBuf,
    supervisor: Supervisor,
    pub(super) timeout: Duration,
}

impl Home {
    pub(super) fn create(timeout: Duration) -> Result<Self, ServerError> {
        let program = server_program()?;
        let folder = new_folder("redis")?;
        let supervisor = Supervisor::create(&folder, CLEAN_UP)?;
        Ok(Self { folder, program, supervisor, timeout })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// `redis-server`, ready to be given arguments.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Nothing of the caller's environment may leak in.
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir(&self.folder)
            .process_group(self.supervisor.group())
            .stdin(Stdio::null());
        command
    }

    pub(super) fn cannot_spawn(&self, error: io::Error) -> ServerError {
        let text = format!("cannot start {}", self.program.display());
        ServerError::new(ServerErrorKind::Spawn, text).with_source(error)
    }
}
