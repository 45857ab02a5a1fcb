//! Why a run could not be made.

use std::error::Error as Source;

/// What was wrong, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct Error {
    what: String,
    source: Box<dyn Source + Send + Sync>,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<Box<dyn Source + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }

    /// For `map_err`.
    pub(crate) fn with<E: Into<Box<dyn Source + Send + Sync>>>(what: &str) -> impl FnOnce(E) -> Self {
        let what = what.to_owned();
        move |source| Self::new(what, source)
    }
}
