//! How the postmaster is started, and how it tells that it is ready.

use std::fs;

use super::{Server, ServerError, ServerErrorKind, port::reserve, wait::Deadline};

const FIRST_START_ATTEMPTS: u32 = 5;

impl Server {
    /// The first start: the port may still be changed.
    pub(super) fn finish_first_start(&mut self) -> Result<(), ServerError> {
        let deadline = Deadline::after(self.home.timeout);
        for _ in 1..FIRST_START_ATTEMPTS {
            match self.wait_ready(deadline) {
                Err(error) if error.kind() == ServerErrorKind::PortTaken => {
                    self.port = reserve()?;
                    self.launch()?;
                }
                result => return result,
            }
        }
        self.wait_ready(deadline)
    }

    /// Starts the postmaster, without waiting for anything.
    pub(super) fn launch(&mut self) -> Result<(), ServerError> {
        let mut command = self.home.command("postgres");
        command.arg("-D").arg(&self.data_dir).args(["-p", &self.port().to_string()]);
        self.program.launch(command, |command, error| self.home.cannot_spawn(command, error))
    }

    pub(super) fn wait_ready(&mut self, deadline: Deadline) -> Result<(), ServerError> {
        while !(self.says_ready() && self.psql("select 1").is_ok()) {
            self.program.not_ready_yet(self.port.get(), deadline)?;
        }
        Ok(())
    }

    /// Whether the postmaster's own status file calls it ready. Cheaper than a connection; only
    /// when it says so is a connection worth trying.
    fn says_ready(&self) -> bool {
        let file = self.data_dir.join("postmaster.pid");
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        // The file of a killed predecessor has another id.
        let own = self.pid().map(|pid| pid.to_string());
        lines.next() == own.as_deref() && lines.nth(6) == Some("ready")
    }
}

/// Whether a later try of the same start can succeed.
pub(super) fn passes(error: &ServerError) -> bool {
    let leftover = |log: &str| {
        log.contains("pre-existing shared memory block") || log.contains("lock file \"postmaster.pid\" already exists")
    };
    error.kind() == ServerErrorKind::PortTaken || error.log_tail().is_some_and(leftover)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::Cluster;

    #[test]
    fn a_port_that_was_taken_is_replaced() {
        let mut cluster = Cluster::builder().start().unwrap();
        let server = cluster.primary_mut();
        server.stop_fast().unwrap();
        let taken = server.port();
        let thief = TcpListener::bind(("127.0.0.1", taken)).unwrap();

        server.launch().unwrap();
        server.finish_first_start().unwrap();

        assert_ne!(server.port(), taken);
        drop(thief);
    }
}
