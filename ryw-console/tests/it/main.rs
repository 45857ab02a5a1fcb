//! Who may look at what, over the router itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod access;
mod judged;
mod shown;
mod stage;
