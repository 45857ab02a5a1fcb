//! How a server is started, and how it is known to be ready.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use super::{RedisServer, ServerError, ServerErrorKind, server::STEP, wait::Deadline};

/// For one look whether it is ready. Who takes longer is likely not our server at all.
const LOOK: Duration = Duration::from_secs(1);

/// How often, in milliseconds, a sentinel asks servers for their state (else each 10 s), and tells
/// others of itself (else each 2 s; it waits four times as long before it corrects a server). It
/// connects again no sooner than a ping later (else 1 s), and a promotion breaks its connections:
/// that has to be within the half second after which it would depose the new master. Five pings is
/// also how long ago it may have heard of a replica that it promotes, so it must not be much less.
const HURRY: [&str; 8] = ["SENTINEL", "DEBUG", "info-period", "200", "publish-period", "200", "ping-period", "300"];

impl RedisServer {
    /// Starts the server again on the same port and folder, and waits until it has loaded its data
    /// and answers. Does nothing if it runs.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Exited`] if the server gives up, [`ServerErrorKind::PortTaken`] or
    /// [`ServerErrorKind::Timeout`] if it is not ready in time.
    pub fn start(&mut self) -> Result<(), ServerError> {
        if self.is_running() {
            return Ok(());
        }
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the process, without waiting for anything.
    pub(super) fn launch(&mut self) -> Result<(), ServerError> {
        let (stdout, stderr) = self
            .log
            .start()
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|error| self.io("cannot write the server's log", error))?;
        let mut command = self.home.command();
        command.arg(self.config_file()).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        if self.sentinel {
            command.arg("--sentinel");
        }
        self.process = Some(command.spawn().map_err(|error| self.home.cannot_spawn(error))?);
        Ok(())
    }

    pub(super) fn wait_ready(&mut self) -> Result<(), ServerError> {
        let deadline = Deadline::after(self.home.timeout);
        while !self.is_ready() {
            if let Some(status) = self.exited()? {
                self.process = None;
                return Err(self.gave_up(status));
            }
            if !deadline.sleep(STEP) {
                return Err(self.timed_out("was not ready", deadline));
            }
        }
        if self.sentinel {
            self.cli(&HURRY)?;
        }
        Ok(())
    }

    /// Whether it answers, and is not a stranger on its port. It refuses `PING` while it loads.
    fn is_ready(&self) -> bool {
        let own = format!("process_id:{}", self.pid().unwrap_or_default());
        let info = self.ask_within(LOOK, &[b"INFO", b"server"]).map(|info| info.lines());
        info.is_ok_and(|info| info.lines().any(|line| line == own)) && self.ask_within(LOOK, &[b"PING"]).is_ok()
    }

    fn gave_up(&self, status: ExitStatus) -> ServerError {
        let (kind, text) = if self.log.since_start().contains("Address already in use") {
            (ServerErrorKind::PortTaken, format!("cannot listen on port {}", self.port()))
        } else {
            (ServerErrorKind::Exited, format!("gave up with {status}"))
        };
        ServerError::new(kind, format!("{} {text}", self.name)).with_log(self.log_tail())
    }
}
