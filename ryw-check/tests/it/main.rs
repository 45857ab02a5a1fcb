//! Tests of the checker.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod command;
mod edges;
mod generate;
mod hostile;
mod lines;
mod literal;
mod mutation;
mod oracle;
