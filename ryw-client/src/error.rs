//! What can be wrong with settings and with what was stored.

use std::error::Error;

/// A setting that can't be used. The text says which, and what is accepted.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} {}", .kind.text())]
pub struct ConfigError {
    kind: ConfigErrorKind,
    given: String,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// A rule of [`SessionBuilder::send_to`](crate::SessionBuilder::send_to) names no host.
    Host,
}

impl ConfigError {
    pub(crate) const fn new(kind: ConfigErrorKind, given: String) -> Self {
        Self { kind, given }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> ConfigErrorKind {
        self.kind
    }
}

impl ConfigErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Host => {
                "names no host: accepted are a host like api.example.com, all hosts below a domain like \
                 *.example.com, each with an optional https:// or http:// before it and an optional port after it"
            }
        }
    }
}

/// A stored session or an envelope that can't be read. The text never repeats it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .kind.text())]
pub struct EnvelopeError {
    kind: EnvelopeErrorKind,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What is wrong with a stored session or an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EnvelopeErrorKind {
    /// It is longer than any.
    TooLong,
    /// It begins with a version that this release does not know.
    UnsupportedVersion,
    /// It is not what was written.
    Malformed,
}

impl EnvelopeError {
    pub(crate) const fn new(kind: EnvelopeErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn malformed(source: impl Error + Send + Sync + 'static) -> Self {
        Self { kind: EnvelopeErrorKind::Malformed, source: Some(Box::new(source)) }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> EnvelopeErrorKind {
        self.kind
    }
}

impl EnvelopeErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::TooLong => "the envelope is longer than any",
            Self::UnsupportedVersion => "the envelope's version is not supported",
            Self::Malformed => "the envelope is damaged",
        }
    }
}
