//! What makes a history unusable.

use std::io;

/// Why a history can't be checked: where it is wrong, and what has to change.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct InputError {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, counted from 1; 0 when the problem belongs to no single line.
    pub line: usize,
    /// The column in bytes, counted from 1; 0 when the line as a whole is wrong.
    pub column: usize,
    /// What is wrong there.
    #[source]
    pub problem: Problem,
}

/// What can be wrong with a line of a history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file can't be read.
    #[error("can't be read")]
    Read(#[source] io::Error),
    /// A line is longer than the limit.
    #[error("the line is longer than {0} bytes; split the history or raise the limit")]
    TooLong(usize),
    /// A line is not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// A line is not an object of the format, or one of its fields has the wrong type.
    #[error("field `{field}`: {reason}")]
    Json {
        /// The field that was being read; `?` outside of any.
        field: &'static str,
        /// The parser's reason.
        reason: String,
    },
    /// A field contradicts the others or is missing.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field to change.
        field: &'static str,
        /// What it has to be.
        reason: &'static str,
    },
    /// There are more operations than the checker can number.
    #[error("more than {0} operations; split the history")]
    TooMany(usize),
}

/// A word that is no [`Level`](crate::Level).
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of EVENTUAL, BOUNDED, MONOTONIC, RYW, SESSION, CAUSAL, STRONG")]
pub struct UnknownLevel(pub(crate) String);

impl Problem {
    /// The field that is wrong, where the problem is one of a field.
    ///
    /// ```
    /// let error = ryw_check::History::parse("{\"id\":\"one\"}").unwrap_err();
    /// assert_eq!((error.line, error.problem.field()), (1, Some("id")));
    /// ```
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Json { field, .. } | Self::Field { field, .. } => Some(field),
            _ => None,
        }
    }
}

pub(crate) const fn field(field: &'static str, reason: &'static str) -> Problem {
    Problem::Field { field, reason }
}
