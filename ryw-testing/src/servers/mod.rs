//! Real database servers, started for one test or demo and gone with it.

mod error;
mod folder;
mod log;
mod port;
pub mod postgres;
mod process;
mod program;
pub mod redis;
mod supervisor;
mod wait;

pub use self::error::{ServerError, ServerErrorKind};
