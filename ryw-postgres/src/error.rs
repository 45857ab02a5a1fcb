//! What can be wrong with the nodes, in words that say what to change. No part of a connection string is in any of them.

use std::{error::Error, fmt};

/// The nodes could not be used as configured.
pub struct ConnectError {
    node: String,
    kind: ConnectErrorKind,
    /// What the other nodes are, where that is a part of the trouble.
    others: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The connection string can't be read.
    Url,
    /// The connection string is not a URL, which sqlx needs.
    NotAUrl,
    /// No primary was given.
    NoPrimary,
    /// Two nodes have the same name.
    DuplicateName,
    /// The node can't be reached, or refuses the login.
    Unreachable,
    /// The node answers, but its position can't be read.
    Unreadable,
    /// The node given as primary is a standby.
    NotAPrimary,
    /// The node given as replica accepts writes.
    NotAReplica,
    /// The connection string leads to another database of the cluster than the primary's.
    OtherDatabase,
    /// The replica belongs to another cluster than the primary.
    OtherCluster {
        /// The primary's system identifier.
        primary: u64,
        /// The replica's.
        replica: u64,
    },
}

impl ConnectError {
    pub(crate) fn new(node: impl Into<String>, kind: ConnectErrorKind) -> Self {
        Self { node: node.into(), kind, others: None, source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn with_others(self, others: impl Into<String>) -> Self {
        Self { others: Some(others.into()), ..self }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// The name of the node it is about.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, kind, others, source } = self;
        match kind {
            ConnectErrorKind::Url => write!(
                f,
                "the connection string of {node} can't be read: accepted are postgres://user:password@host:port/database \
                 and key=value pairs"
            )?,
            ConnectErrorKind::NotAUrl => write!(
                f,
                "the connection string of {node} is none that sqlx can read: write it as \
                 postgres://user:password@host:port/database"
            )?,
            ConnectErrorKind::NoPrimary => f.write_str("no primary is given: name one with Builder::primary")?,
            ConnectErrorKind::DuplicateName => write!(f, "two nodes are called {node}: each needs a name of its own")?,
            ConnectErrorKind::Unreachable => write!(f, "{node} can't be reached: check host, port, user and password")?,
            ConnectErrorKind::Unreadable => {
                write!(f, "{node} answers, but its position can't be read: check the role's privileges (pg_monitor)")?;
            }
            ConnectErrorKind::NotAPrimary => {
                write!(
                    f,
                    "{node} is given as the primary but is a standby: swap it with the node that accepts writes"
                )?;
            }
            ConnectErrorKind::NotAReplica => {
                write!(f, "{node} is given as a replica but accepts writes: give standbys of the primary as replicas")?;
            }
            ConnectErrorKind::OtherDatabase => {
                write!(f, "{node} is asked for another database than the others: give the same one for all nodes")?;
            }
            ConnectErrorKind::OtherCluster { primary, replica } => write!(
                f,
                "{node} belongs to cluster {replica} but the primary to cluster {primary}: give standbys of this primary \
                 as replicas"
            )?,
        }
        if let Some(source) = source {
            write!(f, " ({})", innermost(&**source))?;
        }
        match others {
            Some(others) => write!(f, "; {others}"),
            None => Ok(()),
        }
    }
}

/// tokio-postgres keeps the interesting part of its errors in their sources.
pub(crate) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
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
