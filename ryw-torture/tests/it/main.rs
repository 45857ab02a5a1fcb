//! The command, run as users run it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod runs;
mod targets;
