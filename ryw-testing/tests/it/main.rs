//! The kit itself, on real servers and real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "servers are processes: their deadlines are wall time")]

mod postgres;
mod proxy;
mod redis;
mod support;
