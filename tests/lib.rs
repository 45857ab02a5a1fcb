//! Tests of tower-ryw across its crates are in `it/`. This library runs the code in the README.

#![doc = include_str!("../README.md")]
