//! The store on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod cluster;
mod connect;
mod conformance;
mod failover;
mod memory;
mod quorum;
mod replicas;
mod size;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod together;
