//! A real PostgreSQL primary with streaming standbys, for a test or a demo.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use ryw_testing::servers::postgres::{Cluster, Standby};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = Cluster::builder()
//!     .standby(Standby::named("near"))
//!     .standby(Standby::named("late").apply_delay(Duration::from_millis(500)))
//!     .start()?;
//! let (primary, near) = (cluster.primary(), &cluster.standbys()[0]);
//! println!("{} -> {}", primary.url(), near.url());
//!
//! cluster.primary_mut().kill()?;
//! cluster.standbys()[0].promote()?;
//! cluster.follow("late", "near")?;
//! # Ok(())
//! # }
//! ```
//!
//! # What can go wrong
//!
//! | | |
//! |-|-|
//! | a crash, and the way back | [`Server::kill`], [`Server::start`] |
//! | a machine that pauses | [`Server::freeze`], [`Server::thaw`] |
//! | a failover, and the old primary's return | [`Server::promote`], [`Cluster::follow`], [`Cluster::rewind`] |
//! | an old copy behind the same address | [`Server::save`], [`Server::restore`] |
//! | a network that fails between two servers | [`Cluster::reconnect`] through a [proxy](crate::proxy) |
//! | commits that wait for standbys | [`Cluster::synchronous`] |
//!
//! # What it needs
//!
//! PostgreSQL 13 or newer, of which Debian's package `postgresql` is enough; [`bin_dir`] says where
//! it is looked for. Called by root, it runs the servers as the user `postgres`, else `nobody`,
//! since PostgreSQL refuses root. The folder goes into `TMPDIR`, about 40 MB for each server.
//!
//! Each cluster has its own folder, ports and processes; any number of them can run at once. The
//! caller's environment (`PGPORT`, `PGHOST`, ...) does not reach the servers.
//!
//! # What is left behind
//!
//! Nothing. A small shell process per cluster waits until its owner lets go of a pipe, be it by
//! dropping the [`Cluster`], by a panic, or because it was killed; then it ends the servers and
//! removes the folder. It runs in a process group of its own, with the servers, so Ctrl-C reaches
//! the owner alone.
//!
//! # Not for production
//!
//! The servers listen on 127.0.0.1 only, but there any local user may connect as superuser without
//! a password, and by [default](ClusterBuilder::durable) nothing is forced to disk.

mod backup;
mod binaries;
mod builder;
mod cluster;
mod config;
mod home;
mod replication;
mod rewind;
mod server;
mod startup;
mod user;

use super::{folder, port, program, supervisor, wait};

pub use super::{ServerError, ServerErrorKind};

pub use self::{
    backup::Backup,
    binaries::bin_dir,
    builder::{ClusterBuilder, Standby},
    cluster::Cluster,
    server::Server,
};
