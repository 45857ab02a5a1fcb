//! What can be wrong with the server, in words that say what to change. No part of a connection string is in any of them.

use std::{error::Error, fmt, sync::Arc};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use ryw_core::{StoreError, StoreErrorKind};

use crate::layout::Malformed;

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
    /// Most of the sentinels can't be asked, don't know the service, or don't agree.
    NoMaster,
    /// The server is another run of itself, or another one, since the connection was made.
    Restarted,
    /// The key prefix has a brace in it.
    Prefix,
    /// A certificate or key that was given can't be read.
    Certificates,
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
            ConnectErrorKind::Unreachable => "Redis can't be reached: check host and port and, for rediss://, whom to trust",
            ConnectErrorKind::Denied => {
                "Redis refuses: check user and password, and that the user may run what the documentation of \
                 ryw-redis lists"
            }
            ConnectErrorKind::NotAMaster => "this Redis is a replica: give its master, or the Sentinels that know it",
            ConnectErrorKind::NoMaster => {
                "most of the sentinels do not name the same master: give all of them, and the service's name as they have it"
            }
            ConnectErrorKind::Restarted => "Redis was restarted, or its settings were changed",
            ConnectErrorKind::Prefix => "the key prefix must not have braces in it: they choose the slot in a cluster",
            ConnectErrorKind::Certificates => "the certificates for Redis can't be read: accepted is PEM",
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
    first(error).map(|(code, _)| code)
}

/// The first word, and the others.
pub(crate) fn first(error: &RedisError) -> Option<(String, String)> {
    let answers = error.clone().into_server_errors()?;
    answers.first().map(|(_, answer)| (answer.code().to_owned(), answer.details().unwrap_or_default().to_owned()))
}

/// Fewer replicas than were asked for have said in time that they have the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{acknowledged} of {wanted} replicas have the mark")]
pub(crate) struct TooFewReplicas {
    pub(crate) wanted: u32,
    pub(crate) acknowledged: u32,
}

/// What several requests may have to be told.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Connect(Arc<ConnectError>),
    /// All connections are being made.
    Busy,
    Redis(RedisError),
    Malformed,
    Replicas(TooFewReplicas),
    /// It has the mark, and other processes may still read from the one before it.
    NewMaster,
    /// The store's tasks went with their runtime.
    Ended,
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let error = |kind| Self::new(kind);
        match failure {
            Failure::Connect(source) => error(StoreErrorKind::Unavailable).with_source(source),
            Failure::Busy | Failure::Ended => error(StoreErrorKind::Unavailable),
            Failure::Redis(source) => error(kind_of(&source)).with_source(source),
            Failure::Replicas(source) => error(StoreErrorKind::TooFewCopies).with_source(source),
            Failure::NewMaster => {
                error(StoreErrorKind::TooFewCopies).with_source("the master is new: not all know of it yet")
            }
            Failure::Malformed => error(StoreErrorKind::Corrupt).with_source(Malformed),
        }
    }
}

fn kind_of(error: &RedisError) -> StoreErrorKind {
    match code(error).as_deref() {
        _ if error.is_timeout() => StoreErrorKind::Timeout,
        Some("WRONGTYPE" | "MALFORMED") => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    }
}
