use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    ServerError, ServerErrorKind,
    config::{DATABASE, ROLE},
    home::Home,
    port::{ReservedPort, reserve},
    program::{Program, STEP},
    startup::passes,
};

/// One PostgreSQL server of a [`Cluster`](super::Cluster).
///
/// It keeps its name, port and data directory while it is stopped and started again. All methods
/// block; each wait ends at the latest after [`ClusterBuilder::timeout`].
///
/// [`ClusterBuilder::timeout`]: super::ClusterBuilder::timeout
#[derive(Debug)]
pub struct Server {
    pub(super) port: ReservedPort,
    pub(super) data_dir: PathBuf,
    pub(super) program: Program,
    pub(super) home: Arc<Home>,
}

impl Server {
    pub(super) fn new(name: &str, home: &Arc<Home>) -> Result<Self, ServerError> {
        Ok(Self {
            port: reserve()?,
            data_dir: home.folder().join(name),
            program: Program::new(name, home.folder().join(format!("{name}.log")), home.timeout),
            home: Arc::clone(home),
        })
    }

    /// The name: `primary`, or the one given to [`Standby::named`](super::Standby::named).
    ///
    /// It is also the server's `cluster_name`, and for a standby its `application_name` and
    /// replication slot on the upstream server.
    #[must_use]
    pub fn name(&self) -> &str {
        self.program.name()
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
        self.program.pid()
    }

    /// Whether the postmaster runs at this moment.
    pub fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// All that it has written to its log since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// The last lines of the server's log, at most about 4 KiB; empty if there are none.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.program.log_tail()
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
        let text = format!("{}: psql refused {sql:?}", self.name());
        Err(ServerError::new(ServerErrorKind::Sql, text).with_log(finished.stderr))
    }

    /// Stops the server in order (PostgreSQL's "fast" shutdown): open transactions are rolled
    /// back, and a primary first sends all it has to its standbys. Does nothing if it is stopped.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Timeout`] if it still runs then; [`kill`](Self::kill) ends it.
    pub fn stop_fast(&mut self) -> Result<(), ServerError> {
        self.program.stop(Signal::INT)
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
        let is_frozen = self.program.is_frozen();
        self.program.kill(is_frozen)
    }

    /// Suspends all processes of the server with `SIGSTOP`, as if its machine paused, and returns
    /// when none of them moves: connections stay open and are even taken by the kernel, and nobody
    /// answers. Does nothing if the server is stopped. Linux only.
    ///
    /// [`kill`](Self::kill) ends a frozen server as it is; [`stop_fast`](Self::stop_fast) thaws it.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`] if the processes cannot be found or signalled,
    /// [`ServerErrorKind::Timeout`] if one moves on.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.program.freeze()
    }

    /// Ends what [`freeze`](Self::freeze) did. Does nothing if the server is not frozen.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`] if the processes cannot be found or
    /// signalled.
    pub fn thaw(&self) -> Result<(), ServerError> {
        self.program.thaw()
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
        let deadline = self.program.deadline();
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
        let deadline = self.program.deadline();
        while self.psql(query)? != expected {
            if !deadline.sleep(2 * STEP) {
                return Err(self.program.timed_out(failure, deadline));
            }
        }
        Ok(())
    }
}
