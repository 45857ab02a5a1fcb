//! What operators look at: one page, and the same as JSON, about one [`RywLayer`](tower_ryw::RywLayer).
//!
//! Which reads went to the primary, why, how far behind are the replicas, is anybody reading stale data, were writes lost?
//! The page answers these in words and shows what the answers rest on. It needs no internet and no other service.
//!
//! ```
//! use axum::{Router, routing::get};
//! use ryw_console::{Console, Recorder};
//! use tower_ryw::RywLayer;
//!
//! # fn main() -> Result<(), tower_ryw::ConfigError> {
//! let recorder = Recorder::new();
//! let layer = RywLayer::builder().observer(recorder.clone()).build()?;
//! // To be served on a listener of its own, on 127.0.0.1: the page is at /ryw.
//! let admin: Router = Console::new(&layer, &recorder).into_router();
//! let app: Router = Router::new().route("/notes", get(|| async { "notes" })).layer(layer);
//! # Ok(()) }
//! ```
//!
//! With metrics as well, give the layer both: `.observer((metrics, recorder))`.
//!
//! # Routes
//!
//! | route | answer |
//! |---|---|
//! | `GET /ryw` | the page |
//! | `GET /ryw/live` | all that the page shows, but for decisions; asked for every two seconds |
//! | `GET /ryw/health` | status, what it rests on, thresholds; 503 when critical |
//! | `GET /ryw/nodes` | each node's state, epoch, position, lag |
//! | `GET /ryw/routing` | requests by route and reason, over time and in sum |
//! | `GET /ryw/decisions` | the last decisions, newest first: of a session with `session=`, which takes its hash or its name; only reads that the primary served with `primary_reads=true`; up to 500 with `limit=`, 100 by default |
//!
//! # Who may look
//!
//! Nobody, until an application mounts the router. Then those who can reach it under a name of the loopback interface: any
//! other `Host` is refused, so that no web page can reach it by rebinding its name. [`Console::allow_host`] adds names, and
//! with [`Console::token`] callers have to give a secret instead. Sessions appear as short keyed hashes; names of sessions,
//! tokens and keys do not appear at all.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod latency;
mod series;
mod decisions;
mod recorder;
mod meaning;
pub mod health;
mod live;
mod problem;
mod access;
mod router;

pub use access::TokenTooShort;
pub use recorder::Recorder;
pub use router::Console;
