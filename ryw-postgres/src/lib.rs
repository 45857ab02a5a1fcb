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
//! # Privileges
//!
//! Nothing needs a superuser. The watchers' role needs `pg_monitor`, to see on which timeline a standby receives.
//! After a failover, comparing positions across timelines needs the history file as well:
//! `GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean)`. Without it, marks from before the
//! failover are served by the primary.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod timeline;
mod reading;
mod backend;
mod connect;
mod gate;
mod trouble;
mod unfinished;
mod watcher;
mod pool;

pub use connect::{Builder, MakeClient};
pub use error::{ConnectError, ConnectErrorKind, PoolError, PoolErrorKind, QueryError};
pub use pool::{RywConnection, RywPool};
pub use reading::Capture;
pub use trouble::note_error;

pub use bb8;
pub use tokio_postgres;
pub use tower_ryw::Topology;
