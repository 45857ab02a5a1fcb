//! Errors of a replica that would not occur elsewhere.

use std::error::Error as _;

use tokio_postgres::{Error, error::SqlState};
use tower_ryw::{Route, RywContext};

/// What a statement ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It writes, and replicas don't.
    Writes,
    /// The replica broke it off.
    Broken,
}

/// What an error says about the node, and not about the statement.
pub(crate) fn trouble(error: &Error) -> Option<Trouble> {
    match error.code() {
        Some(code) => trouble_of(code),
        // Not from the server: the connection is gone.
        None => (error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()))
            .then_some(Trouble::Broken),
    }
}

/// The same, for a code: a replica runs no serializable transactions, so its 40001 is a conflict with recovery.
pub(crate) fn trouble_of(code: &SqlState) -> Option<Trouble> {
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        Some(Trouble::Writes)
    } else if *code == SqlState::T_R_SERIALIZATION_FAILURE
        || *code == SqlState::T_R_DEADLOCK_DETECTED
        || *code == SqlState::ADMIN_SHUTDOWN
        || *code == SqlState::CRASH_SHUTDOWN
        || *code == SqlState::CANNOT_CONNECT_NOW
        || *code == SqlState::DATABASE_DROPPED
    {
        Some(Trouble::Broken)
    } else {
        None
    }
}

/// Tells the current request about an error that would not occur elsewhere: a read that turned out to write (SQLSTATE
/// 25006), or that a replica broke off (40001, a lost connection). A [`ReplayLayer`](tower_ryw::ReplayLayer) then makes
/// the request again, on the primary or on another node.
///
/// The place for it is where an application turns database errors into responses:
///
/// ```
/// # use ryw_postgres::tokio_postgres;
/// struct AppError(String);
///
/// impl From<tokio_postgres::Error> for AppError {
///     fn from(error: tokio_postgres::Error) -> Self {
///         ryw_postgres::note_error(&error);
///         Self(error.to_string())
///     }
/// }
/// ```
pub fn note_error(error: &Error) {
    if let Some(trouble) = trouble(error) {
        tell(trouble);
    }
}

pub(crate) fn tell(trouble: Trouble) {
    let Some(context) = RywContext::current() else { return };
    match (trouble, context.route()) {
        (Trouble::Writes, _) => context.found_write(),
        (Trouble::Broken, Route::Replica { node: Some(node) }) => context.found_failure(&node),
        (Trouble::Broken, _) => {}
    }
}
