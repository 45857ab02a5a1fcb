//! What can be wrong with the settings of a layer.

use std::time::Duration;

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
