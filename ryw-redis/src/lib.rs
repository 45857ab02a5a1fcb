//! Marks of tower-ryw shared between instances, in Redis or Valkey.
//!
//! Several instances behind a load balancer, and clients that carry no token: what one instance has written down, the next
//! one has to know. [`RedisStore`] keeps marks in Redis; give it to the layer's builder.
//!
//! Redis loses data by design, so this crate never takes a missing mark for "nothing was written". Every part of the
//! subjects has a *bucket* that says in which run of the server it was begun: after a restart, a failover, `FLUSHALL` or an
//! eviction it is another one or none, and then all who have no mark of the new generation are *unknown*, until the
//! primary's position has been sampled once. What expires is covered in the same way.
//!
//! # Privileges
//!
//! The user needs the keys that begin with the prefix, and INFO, TIME, GET, GETEX, SET, EVALSHA and SCRIPT LOAD:
//!
//! ```text
//! ACL SETUSER ryw on >password ~ryw{* +info +time +get +getex +set +evalsha +script|load
//! ```

mod error;
mod keys;
mod layout;
mod quorum;
mod script;
mod server;
mod store;

pub use error::{ConnectError, ConnectErrorKind};
pub use quorum::{QuorumError, QuorumStore};
pub use store::{RedisStore, RedisStoreBuilder};

pub use bb8;
pub use redis;
