//! ryw-client from outside, one file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod carries;
mod fake;
mod hosts;
mod redirects;
mod retries;
mod stores;
mod trailers;
