//! The kit that tests tower-ryw, on its own code and on yours.
//!
//! * [`check`]: the checker of recorded histories.
//! * [`lagging`]: a key-value store in this process whose replicas apply the primary's log late, with jitter.
//! * [`proxy`]: a TCP proxy whose links can be cut, slowed down and pointed elsewhere.
//! * [`servers`]: real PostgreSQL clusters and Redis servers on free ports, in temporary folders.
//! * [`suite`]: what every mark store must do.

pub use ryw_check as check;

pub mod lagging;
pub mod proxy;
pub mod servers;
pub mod suite;
