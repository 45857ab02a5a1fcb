//! The checker.
//!
//! One pass over all invocations and returns in the order of time. Each session has a vector clock that counts, per session,
//! how many of its operations (in the order of their returns) are in its causal past; operations of one session that overlap
//! stay concurrent, because a clock is copied when an operation is invoked and joined when it returns. Since one clock of
//! the host times everything, that order is a topological order of the causal order, unless a read returned before the
//! write was invoked that it shows; those edges are looked at apart (`cycle`).
//!
//! Time is `O(n·k + n log n)` for `n` operations of `k` sessions, plus what is spent to explain violations; memory is that of
//! the operations, and a clock of `k` numbers for each write that is yet to be read.
//!
//! The patterns are those of Bouajjani, Enea, Guerraoui and Hamza, *On verifying causal consistency* (POPL 2017), with the
//! session guarantees of Terry et al. (1994) as labels.

mod clock;
mod cycle;
mod explain;
mod integrity;
mod lost;
mod owed;
mod snapshots;
mod stale;
mod sweep;
mod tempted;
mod unordered;
mod witness;

use crate::{
    history::History,
    order::Order,
    parse::Level,
    report::{Kind, Report},
};

/// How to check.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The bound of `BOUNDED` reads, in nanoseconds: every write acknowledged longer ago must be visible. Default: none, so
    /// that they promise nothing; see [`History::needs_bound`].
    pub max_staleness: Option<u64>,
    /// Whether a write of unknown outcome that returned and survives is owed to its session from its return on (`RYW`).
    /// Default: no; it is owed once it was observed.
    pub strict: bool,
}

impl History {
    /// Whether some read was promised a bound, so that [`Options::max_staleness`] has to be given.
    #[must_use]
    pub fn needs_bound(&self) -> bool {
        self.ops.iter().any(|op| op.level == Level::Bounded && op.is_answered_read())
    }
}

/// Checks a history.
///
/// ```
/// use ryw_check::{History, Kind, Options, check};
///
/// let history = History::parse(
///     r#"{"id":1,"s":"u1","f":"append","k":"a","v":7,"inv":0,"ret":10,"out":"ok"}
///        {"id":2,"s":"u1","f":"read","k":"a","val":[],"inv":20,"ret":30,"out":"ok"}
///        {"id":3,"f":"final","k":"a","val":[7]}"#,
/// )?;
/// let report = check(&history, &Options::default());
/// assert_eq!(report.violations[0].kind, Kind::Ryw);
/// assert_eq!(report.violations[0].ops, [1, 2]);
/// # Ok::<(), ryw_check::InputError>(())
/// ```
#[must_use]
pub fn check(history: &History, options: &Options) -> Report {
    let order = Order::new(history);
    let mut found = Vec::new();
    integrity::check(history, &order, &mut found);
    snapshots::check(history, &order, &mut found);
    let swept = sweep::sweep(history, &order, options);
    cycle::check(history, &swept.future_reads, &mut found);
    found.extend(swept.found);
    explain::complete(history, &mut found);
    let (replica_share, rate) = tempted::shares(history);
    Report {
        ops: history.len(),
        violations: found.iter().map(|finding| finding.violation(history)).collect(),
        temptations: swept.temptations,
        replica_share,
        rate,
    }
}

/// Whether a level promises that a kind of violation does not happen. What was read must have been written at any level.
pub(crate) fn promises(level: Level, kind: Kind) -> bool {
    let session = matches!(level, Level::Session | Level::Causal | Level::Strong);
    match kind {
        Kind::Ryw => session || level == Level::Ryw,
        Kind::Mr => session || level == Level::Monotonic,
        Kind::Mw | Kind::Wfr => session,
        Kind::Causal => matches!(level, Level::Causal | Level::Strong),
        Kind::Stale => matches!(level, Level::Bounded | Level::Strong),
        Kind::Lost | Kind::Fork => level != Level::Eventual,
        Kind::ThinAir | Kind::Cycle => true,
    }
}
