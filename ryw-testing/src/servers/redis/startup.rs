//! How a server is started, and how it is known to be ready.

use std::time::Duration;

use super::{RedisServer, ServerError};

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
    /// [`ServerErrorKind::Exited`](super::ServerErrorKind::Exited) if the server gives up, [`ServerErrorKind::PortTaken`](super::ServerErrorKind::PortTaken) or
    /// [`ServerErrorKind::Timeout`](super::ServerErrorKind::Timeout) if it is not ready in time.
    pub fn start(&mut self) -> Result<(), ServerError> {
        if self.is_running() {
            return Ok(());
        }
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the process, without waiting for anything.
    pub(super) fn launch(&mut self) -> Result<(), ServerError> {
        let mut command = self.home.command();
        command.arg(self.config_file());
        if self.sentinel {
            command.arg("--sentinel");
        }
        self.program.launch(command, |_, error| self.home.cannot_spawn(error))
    }

    pub(super) fn wait_ready(&mut self) -> Result<(), ServerError> {
        let deadline = self.program.deadline();
        while !self.is_ready() {
            self.program.not_ready_yet(self.port(), deadline)?;
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
}
