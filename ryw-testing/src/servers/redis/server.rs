use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    RedisServerBuilder, ServerError,
    config::{self, Setting},
    home::Home,
    port::ReservedPort,
    program::Program,
};

/// One Redis server, be it alone or of [`Sentinels`](super::Sentinels) or of a
/// [`RedisCluster`](super::RedisCluster).
///
/// It keeps its port, folder and configuration while it is stopped and started again. All methods
/// block; each wait ends at the latest after [`RedisServerBuilder::timeout`]. Dropping it kills the
/// server, and with the last one of its folder that is removed: see the [module](super).
#[derive(Debug)]
pub struct RedisServer {
    pub(super) folder: PathBuf,
    pub(super) program: Program,
    pub(super) password: Option<String>,
    pub(super) sentinel: bool,
    announced: u16,
    port: ReservedPort,
    pub(super) tls_port: Option<ReservedPort>,
    // After all that is in its folder.
    pub(super) home: Arc<Home>,
}

impl RedisServer {
    /// A builder for a single server, which persists nothing and has no password.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    pub(super) fn new(
        name: &str,
        port: ReservedPort,
        announced: u16,
        password: Option<String>,
        home: &Arc<Home>,
    ) -> Self {
        Self {
            folder: home.folder().join(name),
            program: Program::new(name, home.folder().join(format!("{name}.log")), home.timeout),
            password,
            sentinel: false,
            announced,
            port,
            tls_port: None,
            home: Arc::clone(home),
        }
    }

    /// Its name in the texts of errors; one that was started alone is called `server`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.program.name()
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The port that others are told, which is [`port`](Self::port) unless the builder was given
    /// another.
    #[must_use]
    pub fn announced_port(&self) -> u16 {
        self.announced
    }

    pub(super) fn announce(&mut self, port: u16) {
        self.announced = port;
    }

    /// The connection string `redis://127.0.0.1:PORT`, or `redis://:PASSWORD@127.0.0.1:PORT` with
    /// the password in percent-encoding. The port is [`port`](Self::port).
    #[must_use]
    pub fn url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!(":{}@", config::percent_encode(password)));
        format!("redis://{}127.0.0.1:{}", password.unwrap_or_default(), self.port())
    }

    /// The connection string `rediss://127.0.0.1:PORT`, like [`url`](Self::url), for a server that was built with
    /// [`tls`](RedisServerBuilder::tls).
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        let port = self.tls_port.as_ref()?.get();
        let plain = self.url();
        let (start, _) = plain.strip_prefix("redis")?.rsplit_once(':')?;
        Some(format!("rediss{start}:{port}"))
    }

    /// The folder with the server's configuration, `redis.conf`, and its data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id, or `None` after [`stop`](Self::stop) or [`kill`](Self::kill). A server that
    /// ended by itself keeps its last id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.program.pid()
    }

    /// Whether the server runs at this moment, even if it is frozen.
    pub fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// The last lines of the server's log, at most about 4 KiB; empty if there are none.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.program.log_tail()
    }

    /// Stops the server in order, with `SIGTERM`: a master that has replicas which lag waits for
    /// them up to 10 s (`shutdown-timeout`). Does nothing if it is stopped. Thaws a frozen one.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Timeout`](super::ServerErrorKind::Timeout) if it still runs then; [`kill`](Self::kill) ends it.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        self.program.stop(Signal::TERM)
    }

    /// Kills the server with `SIGKILL`, as a crash would, and its child that may be saving. Does
    /// nothing if it is stopped.
    ///
    /// What was answered is there after [`start`](Self::start) if the server is
    /// [persistent](RedisServerBuilder::persistent), else it is gone.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`](super::ServerErrorKind::Io) if the process can be neither signalled nor waited for.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        self.program.kill(true)
    }

    /// Suspends the server with `SIGSTOP`, and its child that may be saving, as if its machine
    /// paused, and returns when neither moves: connections stay open and are even taken by the
    /// kernel, and nobody answers. Does nothing if the server is stopped. Linux only.
    ///
    /// [`kill`](Self::kill) ends a frozen server as it is; [`stop`](Self::stop) thaws it.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`](super::ServerErrorKind::Io) if the processes cannot be found or signalled,
    /// [`ServerErrorKind::Timeout`](super::ServerErrorKind::Timeout) if one moves on.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.program.freeze()
    }

    /// Ends what [`freeze`](Self::freeze) did. Does nothing if the server is not frozen.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`](super::ServerErrorKind::Io) if the processes cannot be found or
    /// signalled.
    pub fn thaw(&self) -> Result<(), ServerError> {
        self.program.thaw()
    }

    pub(super) fn configure(&self, settings: &[Setting]) -> Result<(), ServerError> {
        fs::write(self.config_file(), config::render(settings))
            .map_err(|error| self.program.io("cannot write its configuration", error))
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("redis.conf")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // One that cannot be killed here is left to the supervisor.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{RedisCluster, Sentinels},
        *,
    };

    #[test]
    fn servers_can_be_shared_between_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<RedisServer>();
        check::<Sentinels>();
        check::<RedisCluster>();
    }
}
