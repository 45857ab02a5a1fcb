//! One line of a history, as it is written.

mod line;
mod value;

use std::{borrow::Cow, str::FromStr};

use serde::Serialize;

use crate::error::UnknownLevel;

pub(crate) use line::parse_line;
pub(crate) use value::{Reading, Scalar};

/// What an operation does: `f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Adds a value to a list.
    Append,
    /// Sets a register.
    Put,
    /// Reads a list or a register.
    Read,
    /// Reads several lists at once.
    Snap,
    /// Hands what the session must see to another one.
    Send,
    /// Takes what another session has handed on.
    Recv,
    /// What a node has in the end, seen past the system under test.
    Final,
}

/// How an operation ended: `out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It has taken place.
    Ok,
    /// It has not.
    Fail,
    /// Nobody knows.
    Info,
    /// The session was told that writes are lost.
    Reset,
}

/// What an operation was promised: `level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Nothing.
    Eventual,
    /// Nothing older than a bound, which the history does not know.
    Bounded,
    /// Nothing older than what was seen.
    Monotonic,
    /// What the session has written.
    #[default]
    Ryw,
    /// Both.
    Session,
    /// Also what others had seen before they handed it on.
    Causal,
    /// What anybody has written.
    Strong,
}

impl Level {
    /// From the weakest.
    pub const ALL: [Self; 7] =
        [Self::Eventual, Self::Bounded, Self::Monotonic, Self::Ryw, Self::Session, Self::Causal, Self::Strong];

    /// As histories spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eventual => "EVENTUAL",
            Self::Bounded => "BOUNDED",
            Self::Monotonic => "MONOTONIC",
            Self::Ryw => "RYW",
            Self::Session => "SESSION",
            Self::Causal => "CAUSAL",
            Self::Strong => "STRONG",
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Reads it as histories spell it.
    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == word).ok_or_else(|| UnknownLevel(word.to_owned()))
    }
}

/// The fields of a line; what was left out is `None`.
#[derive(Debug, Default)]
pub(crate) struct Line<'a> {
    pub(crate) id: Option<i64>,
    pub(crate) s: Option<Cow<'a, str>>,
    pub(crate) tab: Option<u32>,
    pub(crate) f: Option<Function>,
    pub(crate) k: Option<Cow<'a, str>>,
    pub(crate) v: Option<Scalar<'a>>,
    pub(crate) val: Option<Reading<'a>>,
    pub(crate) ver: Option<i64>,
    pub(crate) prev: Option<Reading<'a>>,
    pub(crate) inv: Option<u64>,
    pub(crate) ret: Option<u64>,
    pub(crate) out: Option<Outcome>,
    pub(crate) msg: Option<Scalar<'a>>,
    pub(crate) level: Level,
    pub(crate) node: Option<Cow<'a, str>>,
    pub(crate) epoch: Option<i64>,
}
