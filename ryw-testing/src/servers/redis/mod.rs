//! Real Redis servers for a test or a demo: one alone, a master with replicas and sentinels, or a cluster.
//!
//! ```no_run
//! use ryw_testing::servers::redis::{RedisCluster, RedisServer, Sentinels};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut server = RedisServer::builder().persistent().start()?;
//! server.cli(&["SET", "key", "value"])?;
//! server.kill()?;
//! server.start()?;
//! assert_eq!(server.cli(&["GET", "key"])?, "value");
//!
//! let mut sentinels = Sentinels::builder().start()?;
//! println!("{} at {:?}", sentinels.service_name(), sentinels.sentinel_urls());
//! sentinels.master_mut()?.kill()?;
//!
//! let cluster = RedisCluster::builder().start()?;
//! let slot = cluster.slot("key")?;
//! let (from, to) = (cluster.owner(slot)?, cluster.owner(16383 - slot)?);
//! cluster.migrate_slot(slot, from, to)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What can go wrong
//!
//! | | |
//! |-|-|
//! | a crash, and the way back, with the keys or without | [`RedisServer::kill`], [`RedisServer::start`], [`RedisServerBuilder::persistent`] |
//! | a machine that pauses | [`RedisServer::freeze`], [`RedisServer::thaw`] |
//! | a failover, and the old master's return | [`Sentinels::master_mut`], [`Sentinels::wait_agreed`], [`RedisClusterBuilder::replicas`] |
//! | a write that no replica has | [`RedisServer::replicated`] on frozen replicas |
//! | keys that move to another server | [`RedisCluster::migrate_slot`] |
//! | a certificate that is not trusted | [`RedisServerBuilder::tls`] |
//! | a network that fails between servers | [`RedisServerBuilder::announced_port`], [`SentinelsBuilder::announce`] with a [proxy](crate::proxy) |
//!
//! # Proxies
//!
//! A proxy needs the port that it leads to, and the server the port that it announces. For a server alone, start the
//! [`Proxy`](crate::proxy::Proxy) first and [retarget](crate::proxy::Proxy::retarget) it then; for more, `announce` is
//! told each port before the servers start:
//!
//! ```no_run
//! use ryw_testing::{proxy::Proxy, servers::redis::Sentinels};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let (sender, proxies) = std::sync::mpsc::channel();
//! let runtime = tokio::runtime::Handle::current();
//! let start = move || {
//!     Sentinels::builder().announce(move |port| match runtime.block_on(Proxy::start([("127.0.0.1", port)])) {
//!         Ok(proxy) => {
//!             let announced = proxy.port();
//!             // Dropped with the receiver, if nobody wants it any more.
//!             let _ = sender.send(proxy);
//!             announced
//!         }
//!         Err(_) => port,
//!     })
//!     .start()
//! };
//! let sentinels = tokio::task::spawn_blocking(start).await??;
//! let proxies: Vec<Proxy> = proxies.try_iter().collect();
//! # Ok(())
//! # }
//! ```
//!
//! # What it needs
//!
//! Redis 7.0 or newer, of which Debian's package `redis-server` is enough; [`server_program`] says where it is looked
//! for. The caller's environment does not reach the servers.
//!
//! Each server alone, and each set, has its own folder in `TMPDIR`, ports and processes; any number of them can run at
//! once.
//!
//! # What is left behind
//!
//! Nothing. A small shell process per folder waits until its owner lets go of a pipe, be it by dropping the servers, by
//! a panic, or because it was killed; then it kills the servers and removes the folder. It runs in a process group of
//! its own, with the servers, so Ctrl-C reaches the owner alone.
//!
//! # Not for production
//!
//! The servers listen on 127.0.0.1 only, but there, without a password, to any local user. The sentinels look at the
//! servers more often than they are meant to, so that a test need not wait for them.

mod announce;
mod binaries;
mod builder;
mod cluster;
mod commands;
mod config;
mod home;
mod resp;
mod sentinels;
mod server;
mod startup;

use super::{folder, port, program, supervisor, wait};

pub use super::{ServerError, ServerErrorKind};

pub use self::{
    binaries::server_program,
    builder::RedisServerBuilder,
    cluster::{RedisCluster, RedisClusterBuilder},
    sentinels::{Sentinels, SentinelsBuilder},
    server::RedisServer,
};
