//! Tests of the simulation, and those that need real connections.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod cancellation;
mod seeds;
