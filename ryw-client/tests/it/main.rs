//! ryw-client from outside, one file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod carries;
#[cfg(feature = "server")]
mod causal;
mod doubts;
mod end_to_end;
mod fake;
#[cfg(feature = "tonic")]
mod grpc;
#[cfg(feature = "server")]
mod handed_on;
mod hosts;
mod redirects;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retries;
mod service;
mod stores;
mod trailers;
