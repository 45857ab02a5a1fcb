//! One line of a history, as it is written.

mod line;
mod value;

use std::borrow::Cow;

pub(crate) use line::parse_line;
pub(crate) use value::{Reading, Scalar};

/// What an operation does: `f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Append,
    Put,
    Read,
    Snap,
    Send,
    Recv,
    Final,
}

/// How an operation ended: `out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Fail,
    Info,
    Reset,
}

/// What an operation was promised: `level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    Eventual,
    Bounded,
    Monotonic,
    #[default]
    Ryw,
    Session,
    Causal,
    Strong,
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
