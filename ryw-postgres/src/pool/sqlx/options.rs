//! How the connections of an sqlx pool are made.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use sqlx::{
    Error, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub(super) type AfterConnect = dyn for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<(), Error>> + Send + Sync;

/// Settings of a [`RywSqlxPool`](super::RywSqlxPool), where [`PgPoolOptions`] are not enough.
///
/// ```
/// use ryw_postgres::{SqlxOptions, sqlx::{Executor, postgres::{PgPoolOptions, PgSslMode}}};
///
/// let options = SqlxOptions::new(PgPoolOptions::new().max_connections(20))
///     .connect(|options| options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert("/etc/ssl/db.pem"))
///     .after_connect(|connection| {
///         Box::pin(async move { connection.execute("set statement_timeout = '1s'").await.map(drop) })
///     });
/// ```
#[must_use]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
pub struct SqlxOptions {
    pub(super) pool: PgPoolOptions,
    connect: Box<dyn Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync>,
    pub(super) after_connect: Option<Arc<AfterConnect>>,
}

impl SqlxOptions {
    /// These options for the pool of each node. Their `after_connect` is replaced, because the pool needs it itself: give
    /// yours to [`after_connect`](Self::after_connect).
    pub fn new(pool: PgPoolOptions) -> Self {
        Self { pool, connect: Box::new(|options| options), after_connect: None }
    }

    /// Changes what the URL of a node says: encryption, logging, the statement cache. Host and database have to remain
    /// those of the URL, which the node's watcher reads. Default: nothing is changed.
    pub fn connect(mut self, change: impl Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync + 'static) -> Self {
        self.connect = Box::new(change);
        self
    }

    /// What is done with each new connection, before its first use. Default: nothing.
    pub fn after_connect<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<(), Error>> + Send + Sync + 'static,
    {
        self.after_connect = Some(Arc::new(hook));
        self
    }

    pub(super) fn changed(&self, options: PgConnectOptions) -> PgConnectOptions {
        (self.connect)(options)
    }
}

impl From<PgPoolOptions> for SqlxOptions {
    fn from(pool: PgPoolOptions) -> Self {
        Self::new(pool)
    }
}

impl fmt::Debug for SqlxOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxOptions").field("pool", &self.pool).finish_non_exhaustive()
    }
}
