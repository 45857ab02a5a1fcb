use std::{error::Error, fmt, io};

/// Why a server could not be found, started, stopped or asked.
///
/// The text says what to change where that is known, and ends with the last lines of the server's
/// log or of the program's own output where there are any. An operating system error is kept as
/// the [`source`](Error::source).
pub struct ServerError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ServerErrorKind,
    what: String,
    log: Option<String>,
    source: Option<io::Error>,
}

/// The class of a [`ServerError`], for code that acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerErrorKind {
    /// The server's programs are not installed, or not where `RYW_PG_BIN` or `RYW_REDIS_BIN` says.
    MissingBinaries,
    /// The caller is root, and the system has no user to run the servers as.
    MissingUser,
    /// A name or a setting given to the builder, or a server asked for by name, is not valid.
    InvalidConfig,
    /// A program could not be started at all.
    Spawn,
    /// Something did not happen within the builder's `timeout`.
    Timeout,
    /// A program ended by itself, or with a failure.
    Exited,
    /// Another program listens on the server's port.
    PortTaken,
    /// PostgreSQL refused an SQL statement, or the connection for it.
    Sql,
    /// Redis refused a command, or the connection for it.
    Command,
    /// A file or folder could not be read or written.
    Io,
}

impl ServerError {
    pub(super) fn new(kind: ServerErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), log: None, source: None }))
    }

    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::new(ServerErrorKind::Io, what).with_source(source)
    }

    pub(super) fn with_source(mut self, source: io::Error) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(super) fn with_log(mut self, log: impl Into<String>) -> Self {
        self.0.log = Some(log.into()).filter(|log| !log.trim().is_empty());
        self
    }

    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ServerErrorKind {
        self.0.kind
    }

    /// The last lines of the server's log, or of the failed program's output, if there are any.
    #[must_use]
    pub fn log_tail(&self) -> Option<&str> {
        self.0.log.as_deref()
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, what, log, source } = &*self.0;
        f.debug_struct("ServerError")
            .field("kind", kind)
            .field("what", what)
            .field("log", log)
            .field("source", source)
            .finish()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        match self.log_tail() {
            Some(log) => write!(f, "; its last lines were:\n{}", log.trim_end()),
            None => Ok(()),
        }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
