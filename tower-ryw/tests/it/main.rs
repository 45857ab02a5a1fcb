//! tower-ryw from outside, one file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod away;
mod bad_input;
#[cfg(feature = "body")]
mod bodies;
mod caches;
mod cancel;
mod carriers;
mod cluster;
mod context;
mod cookies;
mod gate;
mod harness;
mod hostile;
mod killed;
mod ladder;
mod levels;
mod links;
mod log;
mod lost;
mod outbox;
mod outcomes;
mod readiness;
mod regressions;
mod replay;
mod rotate;
mod rotation;
mod router;
mod runs;
mod sessions;
mod slow_store;
mod spotcheck;
mod stream;
mod strict;
mod threats;
mod tokens;
mod trace;
mod unfinished;
mod unproven;
mod wait;
mod watched;
mod web;
mod window;
