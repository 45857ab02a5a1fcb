//! tower-ryw's promises on a real PostgreSQL and over real sockets: one file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod cancel;
mod capture;
mod grpc;
mod node_dies;
mod offload;
mod pool;
mod sqlx;
mod stale;
mod unsynced;
mod world;
