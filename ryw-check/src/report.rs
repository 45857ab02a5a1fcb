//! What the checker says: violations, the summary, the verdict.

use std::fmt;

/// The kind of a violation; names as in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A read does not show a write of its own session.
    Ryw,
    /// A read does not show what an earlier read of its session showed.
    Mr,
    /// Two writes of one session took effect, or were seen, in the wrong order.
    Mw,
    /// A write was seen without what its session had read before it.
    Wfr,
    /// What a message between sessions carried is not shown.
    Causal,
    /// An acknowledged write is not in the final state, and its session was not told.
    Lost,
    /// Two orders of the same key, or two snapshots that contradict each other.
    Fork,
    /// A read shows what was never written, was certainly not written, or was written twice or later.
    ThinAir,
    /// A read is older than its bound, or than what was there before it began.
    Stale,
    /// Operations depend on each other in a circle.
    Cycle,
}

impl Kind {
    /// The name in the output.
    ///
    /// ```
    /// assert_eq!(ryw_check::Kind::ThinAir.as_str(), "THIN_AIR");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ryw => "RYW",
            Self::Mr => "MR",
            Self::Mw => "MW",
            Self::Wfr => "WFR",
            Self::Causal => "CAUSAL",
            Self::Lost => "LOST",
            Self::Fork => "FORK",
            Self::ThinAir => "THIN_AIR",
            Self::Stale => "STALE",
            Self::Cycle => "CYCLE",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A broken promise and the operations that prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// What was broken.
    pub kind: Kind,
    /// The session to which it was promised; empty when it belongs to none.
    pub session: String,
    /// The ids of the witness, causes first, the operation that failed last.
    pub ops: Vec<i64>,
    /// One sentence, with keys, nodes and epochs.
    pub why: String,
}

/// What a history amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// No violation, and the floors are reached.
    Clean,
    /// At least one violation.
    Violated,
    /// No violation, but the run proves too little: a floor was not reached.
    Void,
}

impl Verdict {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Violated => "violated",
            Self::Void => "void",
        }
    }

    /// The exit code of the command: 0, 1 or 3.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Violated => 1,
            Self::Void => 3,
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Operations in the history, `final` ones included.
    pub ops: usize,
    /// All violations, in the order in which they came to light.
    pub violations: Vec<Violation>,
    /// Reads that a naive router could provably have served stale: at their time, the session was owed something that a
    /// read of the same key which began no earlier did not show.
    pub temptations: u64,
    /// The share of answered reads, of those that say who answered, which came from a node that acknowledged no write in
    /// that epoch; 0 when there are none.
    pub replica_share: f64,
    /// Operations per second, from the first invocation to the last return; 0 for an empty history.
    pub rate: f64,
}
