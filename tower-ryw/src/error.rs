//! What can be wrong with the settings of a layer.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use ryw_core::{KeyError, Level};

/// Longest time that a ladder may wait.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(2);

/// A setting that can't be used. The text names it and says what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(#[source] ConfigErrorKind);

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// A duration that must not be zero.
    #[error("{setting} is zero: give it a positive duration{hint}")]
    Zero {
        /// The setting.
        setting: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A duration that is too long to make sense.
    #[error("{setting} is {given:?}: at most {max:?} is accepted")]
    TooLong {
        /// The setting.
        setting: &'static str,
        /// The duration.
        given: Duration,
        /// The longest that is accepted.
        max: Duration,
    },
    /// A ladder waits longer than requests should be held.
    #[error("a ladder waits {given:?}: at most {MAX_WAIT:?} is accepted, because waiting requests pile up")]
    WaitTooLong {
        /// The wait that was asked for.
        given: Duration,
    },
    /// A route rule whose path can match nothing.
    #[error("route rule {path:?}: a path starts with '/', and '*' is accepted at its end only")]
    Path {
        /// The path.
        path: String,
    },
    /// The maximum level is below the minimum.
    #[error("the maximum level {maximum} is below the minimum level {minimum}: raise the one or lower the other")]
    Levels {
        /// The minimum.
        minimum: Level,
        /// The maximum.
        maximum: Level,
    },
    /// Two settings exclude each other.
    #[error("{one} and {other} can't be set together: {hint}")]
    Conflict {
        /// One setting.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A setting that means nothing without another one.
    #[error("{setting} needs {needs}: {hint}")]
    Missing {
        /// The setting.
        setting: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A size that is too small to work with.
    #[error("{setting} is {given} bytes: at least {min} are accepted")]
    TooSmall {
        /// The setting.
        setting: &'static str,
        /// The size, in bytes.
        given: u64,
        /// The smallest that is accepted, in bytes.
        min: u64,
    },
    /// The outbox's directory can't be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// An environment variable does not parse.
    #[error("environment variable {name} is {value:?}: accepted {accepted}")]
    Env {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        accepted: &'static str,
    },
    /// The environment variable with the signing keys does not parse. Its value is not repeated.
    #[error("environment variable {name}: {source}")]
    KeyVariable {
        /// The variable.
        name: &'static str,
        /// What is wrong with its value.
        source: KeyError,
    },
    /// No key can be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl ConfigError {
    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> &ConfigErrorKind {
        &self.0
    }
}

impl From<ConfigErrorKind> for ConfigError {
    fn from(kind: ConfigErrorKind) -> Self {
        Self(kind)
    }
}

/// The directory of an outbox can't be used. The text names it and says what to change.
#[derive(Clone, Debug, thiserror::Error)]
#[error("outbox {}: {kind}", .directory.display())]
pub struct OutboxError {
    directory: PathBuf,
    kind: OutboxErrorKind,
    #[source]
    source: Option<Arc<io::Error>>,
}

/// Why the directory of an outbox can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutboxErrorKind {
    /// Another layer, of this process or of another one, is using it.
    InUse,
    /// What is in it was not written by an outbox, or by a later version.
    Foreign,
    /// It can't be read or written; the source says why.
    Io,
    /// This platform can't keep two processes from sharing a directory.
    Unsupported,
}

impl OutboxError {
    pub(crate) fn new(directory: impl Into<PathBuf>, kind: OutboxErrorKind) -> Self {
        Self { directory: directory.into(), kind, source: None }
    }

    pub(crate) fn io(directory: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { source: Some(Arc::new(source)), ..Self::new(directory, OutboxErrorKind::Io) }
    }

    /// Why it can't be used.
    #[must_use]
    pub const fn kind(&self) -> OutboxErrorKind {
        self.kind
    }
}

impl PartialEq for OutboxError {
    fn eq(&self, other: &Self) -> bool {
        let source = |error: &Self| error.source.as_ref().map(|source| source.kind());
        (&self.directory, self.kind, source(self)) == (&other.directory, other.kind, source(other))
    }
}

impl Eq for OutboxError {}

impl fmt::Display for OutboxErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "it is in use: give each layer of each process a directory of its own",
            Self::Foreign => "the file in it was not written by this version of an outbox: give it an empty directory",
            Self::Io => "it can't be read or written: it has to be a directory that this process may write to",
            Self::Unsupported => "not supported on this platform, which has no advisory locks on files",
        })
    }
}
