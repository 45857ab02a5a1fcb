//! tower-ryw over a simulated network, database and mark store: everything that happens is decided by a seed.
//!
//! The layer, the client and what stands between the layer and its store are the real ones, built as they are released;
//! hosts and connections are those of `turmoil`. The [`database`](self) is a model of a primary with replicas, without a
//! disk. What sessions see is written down, and judged by `ryw-check`.

mod client;
mod database;
mod history;
mod judge;
mod many;
mod nemesis;
mod net;
mod plan;
mod pool;
mod run;
mod service;
mod store;
mod world;

pub use many::many;
pub use run::{Outcome, run};
