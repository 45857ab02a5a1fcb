//! The kit itself, on real servers and real connections.

mod postgres;
mod proxy;
