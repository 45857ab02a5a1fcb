//! Measures tower-ryw beside what it is compared with.
//!
//! `./bench` runs everything and writes `docs/bench/`.

pub mod client;
pub mod end_to_end;
pub mod machine;
pub mod offload;
pub mod overhead;
pub mod plot;
pub mod positions;
pub mod readme;
pub mod redis;
pub mod report;
pub mod store;
