//! Tests of the checker.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod command;
mod generate;
mod hostile;
mod literal;
mod mutation;
mod oracle;
