//! The store on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod connect;
mod conformance;
mod memory;
mod quorum;
mod size;
mod support;
