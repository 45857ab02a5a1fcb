//! The kit itself, on real servers.

mod postgres;
