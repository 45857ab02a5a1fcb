//! PostgreSQL for tower-ryw.
//!
//! * One watcher per node reads its position, timeline, role and system identifier and reports them into a
//!   [`Topology`]; the same reading, when asked for after a commit, is the position of the write. However many
//!   writes wait for their position, one query is in flight.
//! * Every pooled connection knows which server it leads to; where that is not the one that was read, it is asked itself
//!   before it serves.
//! * [`RywPool`] hands out connections to the primary or to a replica as the current request's route says, so that
//!   handlers don't choose.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ryw_postgres::RywPool;
//! use tower_ryw::RywLayer;
//!
//! let pool = RywPool::builder()
//!     .primary("postgres://app@db-1/app")
//!     .replica("postgres://app@db-2/app")
//!     .replica("postgres://app@db-3/app")
//!     .connect()
//!     .await?;
//! let layer = RywLayer::builder().positions(pool.topology().clone()).build()?;
//!
//! // In a handler: the primary or a replica, as the request may see.
//! let row = pool.get().await?.query_one("select 1", &[]).await?;
//! # Ok(()) }
//! ```
//!
//! # What replicas never show
//!
//! A replica applies the log, so what is not written to it is not covered by any position: unlogged and temporary tables,
//! `NOTIFY`, advisory locks, and what a function does outside of the database. Use `pool.primary()` for those. Logical
//! subscribers are databases of their own; they are refused as replicas.
//!
//! # Privileges
//!
//! Nothing needs a superuser. Besides what the application itself needs, the role of the connection strings needs this:
//!
//! ```sql
//! GRANT pg_read_all_stats TO app;
//! GRANT USAGE ON SCHEMA ryw TO app;
//! GRANT EXECUTE ON FUNCTION ryw.timeline_history(text) TO app;
//! ```
//!
//! The first (a part of `pg_monitor`) shows on which timeline a standby receives, and which commits wait for
//! synchronous standbys. The others are to read where timelines have forked; a superuser installs the function once, from
//! [`HELPERS`], in each database that is connected to. Without it
//! `GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean)` does as well, but with that the role can read
//! every file of the server.
//!
//! Nothing is served that would be wrong without them, but more is served by the primary, or by nobody:
//!
//! * Without the first, a standby's timeline is known from its checkpoints only, so that after a failover replicas are
//!   out of service until their next one. With `synchronous_standby_names`, every commit is taken to be waiting: MONOTONIC,
//!   SESSION and CAUSAL reads go to replicas, wait, or are refused. And that a standby has started again after a crash of
//!   one of its processes is not noticed at once.
//! * Without the others, losses are not told: after a failover, marks from before it are served by the primary, and
//!   replicas that have not got past it serve nobody.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod access;
mod timeline;
mod reading;
mod visibility;
mod connect;
mod watcher;
mod nodes;
#[cfg(any(feature = "bb8", feature = "sqlx"))]
mod backend;
#[cfg(any(feature = "bb8", feature = "sqlx"))]
mod gate;
#[cfg(any(feature = "bb8", feature = "sqlx"))]
mod trouble;
#[cfg(any(feature = "bb8", feature = "sqlx"))]
mod unfinished;
#[cfg(any(feature = "bb8", feature = "sqlx"))]
mod pool;

/// SQL that installs the function by which timelines are read without the right to read other files, see
/// [Privileges](crate#privileges).
pub const HELPERS: &str = include_str!("../sql/helpers.sql");

pub use connect::{Builder, MakeClient};
pub use error::{ConnectError, ConnectErrorKind};
pub use nodes::Nodes;
#[cfg(any(feature = "bb8", feature = "sqlx"))]
pub use pool::{PoolError, PoolErrorKind};
pub use reading::Capture;

pub use tokio_postgres;
pub use tower_ryw::Topology;
#[cfg(feature = "bb8")]
#[cfg_attr(docsrs, doc(cfg(feature = "bb8")))]
pub use {
    bb8,
    pool::{QueryError, RywConnection, RywPool},
    trouble::note_error,
};
#[cfg(feature = "sqlx")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
pub use {
    pool::{RywSqlxPool, SqlxOptions},
    sqlx,
    trouble::note_sqlx_error,
};
