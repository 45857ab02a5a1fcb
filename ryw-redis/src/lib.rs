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
//! # Where marks are
//!
//! | | |
//! |-|-|
//! | one server | [`RedisStore::connect`] |
//! | a master that Sentinels replace | [`connect_sentinel`](RedisStoreBuilder::connect_sentinel) |
//! | a Redis Cluster | [`connect_cluster`](RedisStoreBuilder::connect_cluster) |
//!
//! With the feature `tls`, connection strings may begin with `rediss://`; whom to trust is the builder's
//! `root_certificates`. Where a program has not chosen a provider of cryptography for rustls, ring becomes it.
//!
//! # Privileges
//!
//! The user needs the keys that begin with the prefix, and a few commands; `wait` for
//! [`wait_for_replicas`](RedisStoreBuilder::wait_for_replicas), and in a cluster also `asking`, `cluster|info` and
//! `cluster|slots`:
//!
//! ```text
//! ACL SETUSER ryw on >password ~ryw{* +info +time +get +getex +mget +exists +multi +exec +set +evalsha +script|load +wait +select
//! ```

mod address;
mod buckets;
mod builder;
mod change;
mod cluster;
mod error;
mod find;
mod found;
mod keys;
mod layout;
mod node;
mod quorum;
mod reads;
mod route;
mod said;
mod script;
mod sentinel;
mod server;
mod store;
mod tls;

pub use builder::RedisStoreBuilder;
pub use error::{ConnectError, ConnectErrorKind};
pub use quorum::{QuorumError, QuorumStore};
pub use store::RedisStore;

pub use bb8;
pub use redis;
