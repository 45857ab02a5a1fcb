//! The real binary over real sockets: one file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod bad_input;
mod browser;
mod cli;
mod console;
mod console_page;
mod demo;
mod deploy;
mod failover;
mod gateway;
mod instances;
mod leftovers;
mod operators;
mod program;
mod sessions;
mod shared;
mod stale;
