use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal};

use super::{
    ServerError, ServerErrorKind,
    config::{DATABASE, ROLE},
    home::Home,
    log::Log,
    port::{ReservedPort, reserve},
    startup::passes,
    wait::Deadline,
};

/// Between two looks at a server.
pub(super) const STEP: Duration = Duration::from_millis(5);

/// One PostgreSQL server of a [`Cluster`](super::Cluster).
///
/// It keeps its name, port and data directory while it is stopped and started again. All methods
/// block; each wait ends at the latest after [`ClusterBuilder::timeout`].
///
/// [`ClusterBuilder::timeout`]: super::ClusterBuilder::timeout
#[derive(Debug)]
pub struct Server {
    pub(super) name: String,
    pub(super) port: ReservedPort,
    pub(super) data_dir: PathBuf,
    pub(super) log: Log,
    pub(super) process: Option<Child>,
    pub(super) home: Arc<Home>,
}

impl Server {
    pub(super) fn new(name: &str, home: &Arc<Home>) -> Result<Self, ServerError> {
        Ok(Self {
            name: name.to_owned(),
            port: reserve()?,
            data_dir: home.folder().join(name),
            log: Log::new(home.folder().join(format!("{name}.log"))),
            process: None,
            home: Arc::clone(home),
        })
    }

    /// The name: `primary`, or the one given to [`Standby::named`](super::Standby::named).
    ///
    /// It is also the server's `cluster_name`, and for a standby its `application_name` and
    /// replication slot on the upstream server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The connection string `postgres://ryw@127.0.0.1:PORT/postgres`. There is no password; the
    /// role is a superuser.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{DATABASE}", self.port())
    }

    /// The data directory, which belongs to the user that runs the server.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id of the postmaster, or `None` after [`stop_fast`](Self::stop_fast) or
    /// [`kill`](Self::kill). A server that ended by itself keeps its last id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Whether the postmaster runs at this moment.
    pub fn is_running(&mut self) -> bool {
        self.exited().is_ok_and(|exited| exited.is_none()) && self.process.is_some()
    }

    /// The last lines of the server's log, at most about 4 KiB; empty if there are none.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.log.tail()
    }

    /// Runs `sql` with `psql` as the superuser, and returns the rows without headings: one a line,
    /// columns separated by `|`. Several statements run as one transaction.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Sql`] if the server refuses the connection or a statement.
    pub fn psql(&self, sql: &str) -> Result<String, ServerError> {
        let mut command = self.home.command("psql");
        command
            .args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-p", &self.port().to_string(), "-U", ROLE, "-d", DATABASE])
            .args(["-c", sql]);
        let finished = self.home.run(command)?;
        if finished.status.success() {
            return Ok(finished.stdout.trim_end().to_owned());
        }
        let text = format!("{}: psql refused {sql:?}", self.name);
        Err(ServerError::new(ServerErrorKind::Sql, text).with_log(finished.stderr))
    }

    /// Stops the server in order (PostgreSQL's "fast" shutdown): open transactions are rolled
    /// back, and a primary first sends all it has to its standbys. Does nothing if it is stopped.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Timeout`] if it still runs then; [`kill`](Self::kill) ends it.
    pub fn stop_fast(&mut self) -> Result<(), ServerError> {
        let deadline = Deadline::after(self.home.timeout);
        let runs = self.exited()?.is_none();
        if let Some(process) = self.process.as_ref().filter(|_| runs) {
            // Not waited for yet, so the id cannot have become another process's.
            self.signal(Pid::from_child(process), Signal::INT)?;
            // In case it is frozen. After the signal, so that it takes no more connections.
            if self.is_frozen() {
                self.thaw()?;
            }
        }
        while self.process.is_some() && self.exited()?.is_none() {
            if !deadline.sleep(STEP) {
                return Err(self.timed_out("did not stop", deadline));
            }
        }
        self.process = None;
        Ok(())
    }

    /// Kills the postmaster with `SIGKILL`, as a crash would. Its children notice and end by
    /// themselves within moments, though a statement that is running may still be finished. Does
    /// nothing if the server is stopped. A [frozen](Self::freeze) server's children are killed too,
    /// since they notice nothing.
    ///
    /// What was committed is still there after [`start`](Self::start), even without
    /// [`durable`](super::ClusterBuilder::durable): the operating system keeps the written pages.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`] if the process can be neither signalled nor waited for.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        let children = if self.is_frozen() { self.children()? } else { Vec::new() };
        if let Some(mut process) = self.process.take() {
            process.kill().and_then(|()| process.wait()).map_err(|error| self.io("cannot kill the server", error))?;
        }
        children.into_iter().try_for_each(|child| self.signal(child, Signal::KILL))?;
        Ok(())
    }

    /// Starts the server again on the same port and data directory, and waits until it answers a
    /// query. Does nothing if it runs. A standby may answer before it streams.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Exited`] if the server gives up, [`ServerErrorKind::PortTaken`] or
    /// [`ServerErrorKind::Timeout`] if it is not ready in time.
    pub fn start(&mut self) -> Result<(), ServerError> {
        if self.is_running() {
            return Ok(());
        }
        let deadline = Deadline::after(self.home.timeout);
        loop {
            self.launch()?;
            match self.wait_ready(deadline) {
                // After `kill`, the last of the old server's children may need a moment to end.
                Err(error) if passes(&error) && deadline.sleep(10 * STEP) => {}
                result => return result,
            }
        }
    }

    /// Makes a standby a primary, and returns when it accepts writes. Its old upstream is not
    /// touched, and its siblings do not follow it: see [`Cluster::follow`](super::Cluster::follow).
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Sql`] if it is no standby or is down, else [`ServerErrorKind::Timeout`].
    pub fn promote(&self) -> Result<(), ServerError> {
        self.psql("select pg_promote(wait => false)")?;
        self.wait_for("select pg_is_in_recovery()", "f", "was not promoted")
    }

    /// Waits until `query` yields `expected`.
    pub(super) fn wait_for(&self, query: &str, expected: &str, failure: &str) -> Result<(), ServerError> {
        let deadline = Deadline::after(self.home.timeout);
        while self.psql(query)? != expected {
            if !deadline.sleep(2 * STEP) {
                return Err(self.timed_out(failure, deadline));
            }
        }
        Ok(())
    }

    pub(super) fn exited(&mut self) -> Result<Option<ExitStatus>, ServerError> {
        match &mut self.process {
            Some(process) => process.try_wait().map_err(|error| self.io("cannot wait for the server", error)),
            None => Ok(None),
        }
    }

    pub(super) fn timed_out(&self, what: &str, deadline: Deadline) -> ServerError {
        let text = format!("{} {what} within {:?}", self.name, deadline.limit());
        ServerError::new(ServerErrorKind::Timeout, text).with_log(self.log_tail())
    }

    pub(super) fn io(&self, what: &str, error: io::Error) -> ServerError {
        ServerError::io(format!("{}: {what}", self.name), error).with_log(self.log_tail())
    }
}
