//! Carries a caller's session from response to request, so that it reads its own writes.
//!
//! A server with tower-ryw answers a write with a token that says where the write is. A caller that sends the token with its
//! next requests is served by nodes that have got that far, whichever instance or service it asks. [`Session`] keeps these
//! tokens, [`RywClientLayer`] carries them:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use ryw_client::{RywClientLayer, Session};
//! use tower::ServiceBuilder;
//!
//! let session = Session::new();
//! let client = ServiceBuilder::new()
//!     .layer(RywClientLayer::new(session.clone()))
//!     .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
//! # fn check<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
//! # check(client);
//! ```
//!
//! Over a tonic channel it is the same (with the feature `tonic`, so that calls that read can be made again):
//!
//! ```no_run
//! # #[cfg(feature = "tonic")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ryw_client::{Retry, RywClientLayer, Session};
//! use tonic::transport::Channel;
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//! use tower::ServiceBuilder;
//!
//! let reads = Retry::new().reads("/grpc.health.v1.Health/*");
//! let channel = ServiceBuilder::new()
//!     .layer(RywClientLayer::new(Session::new()).retry(reads))
//!     .service(Channel::from_static("http://[::1]:50051").connect_lazy());
//! HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
//! # Ok(()) }
//! ```
//!
//! * [`reqwest::Client`](crate::reqwest) is for those who use reqwest (feature `reqwest`).
//! * [`RywClientLayer::within_request`] is for servers that call other servers (feature `server`).
//! * [`Envelope`] puts a session into a job or a message, [`SavedSession`] into a file (feature `serde`).
//!
//! No key is needed: what a token says is read but never believed, and only decides which tokens are worth sending. A server
//! believes what it has signed.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(all(feature = "reqwest", feature = "server")), allow(rustdoc::broken_intra_doc_links))]

mod error;
mod session;
mod envelope;
mod baggage;
mod redirect;
mod report;
mod retry;
mod body;
mod layer;
mod served;
mod call;
mod future;
mod service;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;

pub use body::{LearnBody, RetryBody};
pub use envelope::{Envelope, MAX_ENVELOPE_LEN, SavedSession};
pub use error::{ConfigError, ConfigErrorKind, EnvelopeError, EnvelopeErrorKind};
pub use future::ResponseFuture;
pub use layer::RywClientLayer;
pub use report::{GaveUp, Report};
pub use retry::Retry;
pub use service::RywClientService;
pub use session::{Session, SessionBuilder};

pub use ryw_core::{Level, Lost, NameError, SessionId, wire};
