//! What tower-ryw does, as OpenTelemetry metrics.
//!
//! ```
//! use opentelemetry::global;
//! use ryw_telemetry::Metrics;
//! use tower_ryw::RywLayer;
//!
//! let meter = global::meter("my-service");
//! let metrics = Metrics::new(&meter);
//! # let (store, keys) = (tower_ryw::LocalStore::new(), tower_ryw::Keyring::random().unwrap());
//! let layer = RywLayer::builder()
//!     .observer(metrics.clone())
//!     .store(metrics.store(store))
//! #   .signing_keys(keys)
//!     .build()?;
//! // What is looked at, rather than counted: marks, nodes, the shared store.
//! metrics.watch(&layer);
//! # Ok::<(), tower_ryw::ConfigError>(())
//! ```
//!
//! Labels come from closed sets: routes, reasons, levels, kinds of marks and errors, operations, and the names that nodes were given. Nothing that a
//! client sends becomes one.
//!
//! | metric | kind | labels | meaning |
//! |---|---|---|---|
//! | `ryw_enforcement_count` | counter | `route`, `reason`, `level`, `achieved`, `proven` | requests that were given a route; `proven` is false where what they had to see rests on a token that nobody believes, so that a level that was not achieved was not owed |
//! | `ryw_read_latency_ms` | histogram | `route` | from a read's arrival to its answer, in ms |
//! | `ryw_wait_seconds` | histogram | | how long reads have waited for a replica; those that waited |
//! | `ryw_marks_recorded_total` | counter | `kind`, `source` | marks by what they stand for, and what made them: `creation` (a `POST`), `update`, `manual` (a read said that it wrote), `read` |
//! | `ryw_tokens_refused_total` | counter | `kind` | tokens that were not believed |
//! | `ryw_lost_told_total` | counter | | answers that told of a lost write |
//! | `ryw_refused_total` | counter | `reason` | requests that the layer has refused |
//! | `ryw_write_conflicts_total` | counter | | writes that the service has turned down because somebody else had written first (409, 412, `ABORTED`) |
//! | `ryw_spot_checks_total` | counter | `found` | reads that a [`SpotCheckLayer`](tower_ryw::SpotCheckLayer) has compared with the primary |
//! | `ryw_violations_total` | counter | | those that did not show what their session had to see |
//! | `ryw_store_latency_seconds` | histogram | `operation` | from asking the mark store to its answer; of [`Metrics::store`] |
//! | `ryw_store_errors_total` | counter | `operation`, `kind` | answers that it did not give, of [`Metrics::store`] |
//! | `ryw_sessions_active` | gauge | | subjects with a mark in this process |
//! | `ryw_primary_budget_used` | gauge | | reads that are on the primary because no replica was fresh enough |
//! | `ryw_primary_budget_limit` | gauge | | how many of them there may be |
//! | `ryw_waiting` | gauge | | reads that wait for a replica |
//! | `ryw_node_up` | gauge | `node`, `state` | 1, for the state that the node is in |
//! | `ryw_node_epoch` | gauge | `node` | the epoch that the node is in |
//! | `ryw_replication_lag_bytes` | gauge | `node` | what the primary has written and the node has not applied |
//! | `ryw_replication_lag_seconds` | gauge | `node` | how old what the node shows may be |
//! | `ryw_commit_to_visible_seconds` | gauge | `node` | from a commit until the node was seen to show it, at most |
//! | `ryw_store_heard_seconds` | gauge | | how long ago the shared store has last answered |
//! | `ryw_store_away_seconds` | gauge | | for how long it has not answered, 0 while it does |
//! | `ryw_store_available` | gauge | | whether the shared store answers |
//! | `ryw_outbox_backlog` | gauge | | subjects whose marks wait to be delivered |
//! | `ryw_outbox_oldest_seconds` | gauge | | for how long the oldest of them has waited |
//! | `ryw_outbox_attempts` | gauge | | how often delivery was tried since the store went away |
//! | `ryw_outbox_bytes` | gauge | | the size of the outbox's file |
//! | `ryw_outbox_failed` | gauge | | 1 while the outbox's file can't be written |
//! | `ryw_outbox_full` | gauge | | 1 while everybody's marks are unknown because something could not be kept |
//! | `ryw_outbox_dropped_total` | counter | | subjects whose marks were dropped |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod counted;
mod store;
mod watched;

pub use counted::Metrics;
pub use store::MeasuredStore;

pub use opentelemetry;
