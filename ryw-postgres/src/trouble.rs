//! Errors of a replica that would not occur elsewhere.

use tokio_postgres::error::SqlState;
use tower_ryw::{Route, RywContext};

#[cfg(feature = "sqlx")]
use {crate::pool::PoolError, tower_ryw::NodeName};
#[cfg(feature = "bb8")]
use {std::error::Error as _, tokio_postgres::Error};

/// What a statement ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It writes, and replicas don't.
    Writes,
    /// The replica broke it off.
    Broken,
}

#[cfg(feature = "sqlx")]
impl Trouble {
    /// Tells the request about it.
    pub(crate) fn tell(self, context: &RywContext, replica: &NodeName) {
        match self {
            Self::Writes => context.found_write(),
            Self::Broken => context.found_failure(replica),
        }
    }
}

/// What an error says about the node, and not about the statement.
#[cfg(feature = "bb8")]
pub(crate) fn trouble(error: &Error) -> Option<Trouble> {
    match error.code() {
        Some(code) => trouble_of(code),
        // Not from the server: the connection is gone.
        None => (error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()))
            .then_some(Trouble::Broken),
    }
}

/// The same, for sqlx. That no connection could be had says nothing about a statement.
#[cfg(feature = "sqlx")]
pub(crate) fn trouble_of_sqlx(error: &sqlx::Error) -> Option<Trouble> {
    match error {
        sqlx::Error::Database(error) => trouble_of(&SqlState::from_code(&error.code()?)),
        sqlx::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<PoolError>()) => None,
        sqlx::Error::Io(_) => Some(Trouble::Broken),
        _ => None,
    }
}

/// The same, for a code: a replica runs no serializable transactions, so its 40001 is a conflict with recovery.
fn trouble_of(code: &SqlState) -> Option<Trouble> {
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
#[cfg(feature = "bb8")]
pub fn note_error(error: &Error) {
    if let Some(trouble) = trouble(error) {
        tell(trouble);
    }
}

/// As [`note_error`], for sqlx: of a connection or a transaction that was taken from a
/// [`RywSqlxPool`](crate::RywSqlxPool). Statements that are given to the pool itself are dealt with there.
///
/// ```
/// # use ryw_postgres::sqlx;
/// struct AppError(String);
///
/// impl From<sqlx::Error> for AppError {
///     fn from(error: sqlx::Error) -> Self {
///         ryw_postgres::note_sqlx_error(&error);
///         Self(error.to_string())
///     }
/// }
/// ```
#[cfg(feature = "sqlx")]
pub fn note_sqlx_error(error: &sqlx::Error) {
    if let Some(trouble) = trouble_of_sqlx(error) {
        tell(trouble);
    }
}

fn tell(trouble: Trouble) {
    let Some(context) = RywContext::current() else { return };
    match (trouble, context.route()) {
        (Trouble::Writes, _) => context.found_write(),
        (Trouble::Broken, Route::Replica { node: Some(node) }) => context.found_failure(&node),
        (Trouble::Broken, _) => {}
    }
}
