//! tower-ryw's promises on a real PostgreSQL and over real sockets: one file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod cancel;
mod capture;
mod commit;
mod failing;
mod failover;
mod foreign;
mod gate;
mod grpc;
mod grpc_notes;
mod grpc_stream;
mod load;
mod lost;
mod node_dies;
mod offload;
mod outages;
mod pool;
mod privileges;
mod promotion;
mod proof;
mod replay;
mod sqlx;
mod stale;
mod synchronous;
mod unknown;
mod unsynced;
mod waiting;
mod world;
