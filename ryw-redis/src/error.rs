//! What can be wrong with the server, in words that say what to change. No part of a connection string is in any of them.

use std::{error::Error, fmt};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use ryw_core::{StoreError, StoreErrorKind};

/// The store could not be used as configured.
pub struct ConnectError {
    kind: ConnectErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The connection string can't be read.
    Url,
    /// The server can't be reached.
    Unreachable,
    /// The server refuses the login, or a command that is needed.
    Denied,
    /// The server is a replica.
    NotAMaster,
    /// The server is older than Redis 6.2.
    TooOld,
}

impl ConnectError {
    pub(crate) const fn new(kind: ConnectErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> ConnectErrorKind {
        self.kind
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        let kind = match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => ConnectErrorKind::Denied,
            _ if matches!(code(&error).as_deref(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => ConnectErrorKind::Denied,
            _ => ConnectErrorKind::Unreachable,
        };
        Self::new(kind).with_source(error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ConnectErrorKind::Url => {
                "the connection string of Redis can't be read: accepted is redis://user:password@host:port/database"
            }
            ConnectErrorKind::Unreachable => "Redis can't be reached: check host and port",
            ConnectErrorKind::Denied => {
                "Redis refuses: check user and password, and that the user may run INFO, TIME, GET, GETEX, SET, EVALSHA and \
                 SCRIPT LOAD"
            }
            ConnectErrorKind::NotAMaster => "this Redis is a replica: give its master, or the Sentinels that know it",
            ConnectErrorKind::TooOld => "this Redis is too old: 6.2 or later is needed",
        })?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// With the sentence: this is what `main` prints when it returns the error.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectError({:?}: {self})", self.kind)
    }
}

/// The first word of the server's answer, also where it answers one of several commands.
pub(crate) fn code(error: &RedisError) -> Option<String> {
    let answers = error.clone().into_server_errors()?;
    answers.first().map(|(_, answer)| answer.code().to_owned())
}

pub(crate) fn store_error(error: RedisError) -> StoreError {
    let kind = match code(&error).as_deref() {
        _ if error.is_timeout() => StoreErrorKind::Timeout,
        Some("WRONGTYPE") => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind).with_source(error)
}
