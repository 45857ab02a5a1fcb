//! Carries a caller's session from response to request.
#![cfg_attr(docsrs, feature(doc_cfg))]

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
