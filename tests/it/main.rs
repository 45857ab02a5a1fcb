//! Across crates, on real servers.
