//! Bodies: of requests that may be made again, and of responses whose trailers carry a token.

mod learn;
mod retry;
#[cfg(feature = "tonic")]
mod record;

pub use learn::LearnBody;
pub(crate) use learn::Lesson;
pub use retry::RetryBody;
