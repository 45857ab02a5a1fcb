//! Read-your-writes for any Tower service.
//!
//! A web application that reads from database replicas shows users stale data right after they saved. [`RywLayer`]
//! finds out what a session must already be able to see, routes the read to a replica that is fresh enough or to the
//! primary, and remembers writes:
//!
//! ```text
//! request ─► identify ─► lookup ─► decide ─► [ your service ] ─► outcome ─► record ─► annotate ─► response
//! ```
//!
//! * [`RywLayer`] wraps a service, [`RywContext`] is what its handlers see of it.
//! * [`Topology`] knows where the nodes are in the log; an adapter such as `ryw-postgres` feeds it.
//! * [`RywRouter`] is for when the request itself goes to a primary or a replica service.
//! * [`LocalStore`] keeps marks in this process; any [`MarkStore`] can take its place.
//!
//! # Traces
//!
//! Each request has a span `ryw` (of `tracing`, level INFO, target `tower_ryw`) around the service's own. Where no subscriber wants it, it is
//! not made.
//!
//! | attribute of `ryw` | meaning |
//! |---|---|
//! | `ryw.intent` | `read` or `write`, as classified |
//! | `ryw.level` | the level that applied |
//! | `ryw.required` | what had to be visible |
//! | `ryw.route`, `ryw.node` | `primary` or `replica`, and which one |
//! | `ryw.reason` | why; of the closed set that `Ryw-Route` has |
//! | `ryw.epoch` | the newest epoch that was known |
//! | `ryw.waited_ms` | how long a replica was waited for |
//! | `ryw.achieved` | whether the level was achieved |
//! | `ryw.recorded` | what the session's next request must see |
//! | `ryw.outcome` | what became of its marks: `written`, `read`, `unknown-outcome`, `without-position`, `not-stored` |
//! | `ryw.refused` | `true` when the service was not called |
//!
//! Below it, `ryw.prepare` is the time before the service is called (marks are looked up, a position is sampled, a replica is
//! waited for) and `ryw.record` the time that the answer is held back until its mark is safe. Both are there only when
//! there was something to wait for.
//!
//! A read that a [`SpotCheckLayer`] makes again has a span `ryw.check` of its own, linked to the request's: `ryw.node` is the
//! replica whose answer was compared, `ryw.found` one of `agreed`, `violation`, `overtaken`, `incomparable`, `skipped`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod sync;
mod error;
mod clock;
mod problem;
mod policy;
mod present;
mod grpc;
#[cfg(feature = "body")]
mod body;
mod lines;
mod observe;
mod trace;
mod window;
mod memory;
pub mod topology;
mod outbox;
mod guarded;
mod config;
mod identify;
mod lookup;
mod decide;
mod route;
mod outcome;
mod record;
mod annotate;
mod context;
mod future;
mod stream;
mod service;
mod layer;
mod env;
mod router;
mod replay;
mod spotcheck;
#[doc(hidden)]
pub mod pure;

#[cfg(feature = "body")]
pub use body::{ClassifyBody, ClassifyBodyFuture, ClassifyBodyLayer, ReadAhead};
pub use config::CookiePolicy;
#[cfg(feature = "axum")]
pub use context::MissingLayer;
pub use context::{RywContext, TooManySubjects, WithContext};
pub use decide::Route;
pub use error::{ConfigError, ConfigErrorKind, OutboxError, OutboxErrorKind};
pub use future::ResponseFuture;
pub use grpc::GrpcMethods;
#[cfg(feature = "grpc-schema")]
pub use grpc::SchemaError;
pub use guarded::StoreHealth;
pub use layer::{RywLayer, RywLayerBuilder, WeakRywLayer};
pub use memory::{LocalStore, LocalStoreBuilder};
pub use observe::{Checked, Observe, Recorded, Refused, Routed, SpotCheck, Stats, StatsSnapshot};
pub use policy::{Classify, Intent, Ladder, RequestHead, RouteRule, SafeMethods, Source};
pub use problem::AnswerBody;
pub use record::Run;
pub use replay::{Replay, ReplayFuture, ReplayLayer};
pub use router::RywRouter;
pub use service::RywService;
pub use spotcheck::{SpotCheckBody, SpotCheckFuture, SpotCheckLayer, SpotChecks};
pub use stream::{
    Delivered, GrpcTrailers, GrpcTrailersBody, GrpcTrailersFuture, GrpcTrailersLayer, RywMessage, RywStream,
    StreamError, StreamErrorKind,
};
pub use topology::{NodeName, Topology};
pub use window::{AdaptiveWindow, Measurement};

pub use ryw_core::{
    ClusterId, Epoch, Key, KeyError, Keyring, Level, Loaded, Lost, Mark, MarkStore, Marks, Position, Reason, SessionId,
    Stamp, StoreError, StoreErrorKind, StoreFuture, Subject, SubjectKey, SubjectTag, Tenant, Token, TokenError,
    Unsettled, Update, wire,
};
