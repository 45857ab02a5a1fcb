//! Why there is no connection, in words that say what to change. No part of a connection string is in any of them.

use std::{error::Error, fmt};

use crate::error::innermost;

/// No connection could be had.
pub struct PoolError {
    node: String,
    kind: PoolErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolErrorKind {
    /// All connections were in use, or none could be made, until the deadline.
    Timeout,
    /// A connection could not be made.
    Connect,
    /// No replica is in service.
    NoReplica,
    /// No primary is in service.
    NoPrimary,
    /// The node does not answer, or not in time.
    Down,
    /// The server behind the connection has not applied what the request must see, or its history is not known to contain
    /// it.
    Behind,
    /// A write that must follow what the session has written or seen before, and a failover has lost that: the client has
    /// to know first.
    Lost,
}

impl PoolError {
    pub(crate) fn new(node: impl Into<String>, kind: PoolErrorKind) -> Self {
        Self { node: node.into(), kind, source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> PoolErrorKind {
        self.kind
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, kind, source } = self;
        match kind {
            PoolErrorKind::Timeout => write!(
                f,
                "no connection to {node} within the deadline: all of this pool's are in use (Builder::max_connections), or \
                 the server gives no more"
            )?,
            PoolErrorKind::Connect => write!(f, "no connection to {node} could be made")?,
            PoolErrorKind::NoPrimary => {
                write!(f, "no primary is in service; {node}, which was given as one, is none now")?
            }
            PoolErrorKind::Down => write!(f, "{node} is down")?,
            PoolErrorKind::Behind => {
                write!(f, "the server behind {node}'s address has not applied what the request must see")?;
            }
            PoolErrorKind::Lost => write!(
                f,
                "what the session has written before did not survive a failover: a write that follows it waits until the \
                 client has sent Ryw-Lost: ack"
            )?,
            PoolErrorKind::NoReplica => f.write_str("no replica is in service")?,
        }
        match source {
            Some(source) => write!(f, " ({})", innermost(&**source)),
            None => Ok(()),
        }
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// The pool's own, where it was one; otherwise this one, as the cause of an I/O error.
#[cfg(feature = "sqlx")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
impl From<PoolError> for sqlx::Error {
    fn from(mut error: PoolError) -> Self {
        let io = |error: PoolError| Self::Io(std::io::Error::new(std::io::ErrorKind::NotConnected, error));
        match error.source.take().map(|source| source.downcast::<Self>()) {
            Some(Ok(original)) => *original,
            Some(Err(source)) => io(PoolError { source: Some(source), ..error }),
            None => io(error),
        }
    }
}

/// With the sentence: this is what `main` prints when it returns the error.
impl fmt::Debug for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolError({:?}: {self})", self.kind)
    }
}

/// A statement could not be run.
#[cfg(feature = "bb8")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// There was no connection to run it on.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The server has refused it.
    #[error(transparent)]
    Sql(#[from] tokio_postgres::Error),
}
