//! What can be seen from outside: one place for counters and log lines, so that routing stays free of them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ryw_core::{Level, Lost, Marks, Reason, SessionId, SubjectKey, TokenError};

use crate::{
    lines::{LineLimit, News, Spell},
    policy::Source,
};

/// Watches what the layer does. Every method has an empty default; called on the request's task, so be quick.
///
/// A pair of observers is an observer, so several can watch one layer:
///
/// ```
/// use tower_ryw::{Observe, RywLayer};
///
/// #[derive(Debug)]
/// struct Metrics;
/// #[derive(Debug)]
/// struct Console;
///
/// impl Observe for Metrics {}
/// impl Observe for Console {}
///
/// RywLayer::builder().observer((Metrics, Console)).build()?;
/// # Ok::<(), tower_ryw::ConfigError>(())
/// ```
pub trait Observe: fmt::Debug + Send + Sync + 'static {
    /// A request was answered, or cut short; not a read that was passed through, having no session and asking for no node.
    fn routed(&self, event: &Routed<'_>) {
        let _ = event;
    }

    /// A request's writes have been recorded, or could not be; `source` is what made the mark.
    fn recorded(&self, event: Recorded, source: Source) {
        let _ = (event, source);
    }

    /// A token was not believed.
    fn token_refused(&self, error: TokenError) {
        let _ = error;
    }

    /// A session was told that something it has written or seen did not survive a failover. It is told with each
    /// answer until it acknowledges.
    fn lost_told(&self, lost: Lost) {
        let _ = lost;
    }

    /// The layer has answered a request itself; the service was not called.
    fn refused(&self, why: Refused) {
        let _ = why;
    }

    /// The service has turned a write down because somebody else had written first: HTTP 409 or 412, gRPC `ABORTED`.
    fn conflicted(&self) {}

    /// A read that a replica had served was compared with the primary by a [`SpotCheckLayer`](crate::SpotCheckLayer). Called
    /// within the check's span, which is linked to the request's.
    fn checked(&self, event: &SpotCheck<'_>) {
        let _ = event;
    }
}

/// Both are told, in this order.
impl<A: Observe, B: Observe> Observe for (A, B) {
    fn routed(&self, event: &Routed<'_>) {
        self.0.routed(event);
        self.1.routed(event);
    }

    fn recorded(&self, event: Recorded, source: Source) {
        self.0.recorded(event, source);
        self.1.recorded(event, source);
    }

    fn token_refused(&self, error: TokenError) {
        self.0.token_refused(error);
        self.1.token_refused(error);
    }

    fn lost_told(&self, lost: Lost) {
        self.0.lost_told(lost);
        self.1.lost_told(lost);
    }

    fn refused(&self, why: Refused) {
        self.0.refused(why);
        self.1.refused(why);
    }

    fn conflicted(&self) {
        self.0.conflicted();
        self.1.conflicted();
    }

    fn checked(&self, event: &SpotCheck<'_>) {
        self.0.checked(event);
        self.1.checked(event);
    }
}

impl<T: Observe + ?Sized> Observe for Arc<T> {
    fn routed(&self, event: &Routed<'_>) {
        (**self).routed(event);
    }

    fn recorded(&self, event: Recorded, source: Source) {
        (**self).recorded(event, source);
    }

    fn token_refused(&self, error: TokenError) {
        (**self).token_refused(error);
    }

    fn lost_told(&self, lost: Lost) {
        (**self).lost_told(lost);
    }

    fn refused(&self, why: Refused) {
        (**self).refused(why);
    }

    fn conflicted(&self) {
        (**self).conflicted();
    }

    fn checked(&self, event: &SpotCheck<'_>) {
        (**self).checked(event);
    }
}

/// Where one request was sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Routed<'a> {
    /// True for the primary, false for a replica.
    pub primary: bool,
    /// The node, where one was chosen by name.
    pub node: Option<&'a str>,
    /// Why.
    pub reason: Reason,
    /// The level that applied.
    pub level: Level,
    /// Whether the request was classified as a read.
    pub read: bool,
    /// From its arrival at the layer to its answer.
    pub took: Duration,
    /// How long the request waited for a replica.
    pub waited: Duration,
    /// Whether the level was achieved.
    pub achieved: bool,
    /// Whether what the request had to see is known. False where it rests on a token that nobody believes: when the level was
    /// not achieved then, nobody was owed it.
    pub proven: bool,
    /// The session, as the mark store knows it, also one that has begun with this request; `None` for a request without one.
    pub session: Option<SubjectKey>,
    /// Its name, where the client told it or is told it now. Not to be shown or kept: it is the client's own.
    pub session_name: Option<&'a SessionId>,
}

impl Routed<'_> {
    /// `primary` or `replica`.
    #[must_use]
    pub const fn route(&self) -> &'static str {
        if self.primary { "primary" } else { "replica" }
    }
}

/// What became of a request's marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recorded {
    /// A write's position, or a window, is in the store.
    Written,
    /// The position of a read is in the store (levels MONOTONIC, SESSION and CAUSAL).
    Read,
    /// Nobody knows whether the request wrote; its subjects are held to the primary for a while.
    UnknownOutcome,
    /// The write's position could not be sampled in time; its subjects are treated as unknown.
    WithoutPosition,
    /// The store did not take the mark: only the response's token carries it.
    NotStored,
}

impl Recorded {
    /// The word for it in metrics and traces.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Read => "read",
            Self::UnknownOutcome => "unknown-outcome",
            Self::WithoutPosition => "without-position",
            Self::NotStored => "not-stored",
        }
    }
}

/// Why the layer has answered a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// It can't be understood, or the client did not mean it so.
    Invalid,
    /// Nothing that may serve it is fresh enough or reachable; or, for a write, what it would follow is not there.
    NotFresh(Reason),
    /// A strict write that could not be announced to the other instances.
    NotAnnounced,
}

impl Refused {
    /// The word for it in metrics: that of the [`Reason`], `invalid` or `not-announced`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFresh(reason) => reason.word(),
            Self::NotAnnounced => "not-announced",
        }
    }
}

/// What comparing one read with the primary has shown, see [`SpotCheckLayer`](crate::SpotCheckLayer).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SpotCheck<'a> {
    /// What was found.
    pub found: Checked,
    /// The replica that had served the read, where it is known by name.
    pub node: Option<&'a str>,
    /// The level that applied.
    pub level: Level,
    /// What the read had to see.
    pub required: &'a Marks,
}

/// What a [`SpotCheck`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Checked {
    /// The primary answers the same.
    Agreed,
    /// The replica did not show something that the session had to see.
    Violation,
    /// The primary answers something else, but it has been written to since: that proves nothing.
    Overtaken,
    /// It can't be compared: too large, late, failed, or different each time.
    Incomparable,
    /// As many checks as may be were under way.
    Skipped,
}

impl Checked {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Agreed, Self::Violation, Self::Overtaken, Self::Incomparable, Self::Skipped];

    /// The word for it in metrics and traces.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Violation => "violation",
            Self::Overtaken => "overtaken",
            Self::Incomparable => "incomparable",
            Self::Skipped => "skipped",
        }
    }
}

/// What a mark store may give to every request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// It does not say what it knows.
    Unread,
    /// It does not take that there is going to be a write.
    Unannounced,
    /// It does not take that a write may still commit.
    Unrenewed,
    /// It does not take the epoch in which something was lost.
    Unnamed,
}

/// Counters of one layer since it was built.
#[derive(Debug)]
pub struct Stats {
    routed: [[AtomicU64; Reason::ALL.len()]; 2],
    recorded: [AtomicU64; 5],
    sources: [AtomicU64; Source::ALL.len()],
    unproven: AtomicU64,
    tokens_refused: AtomicU64,
    refused: AtomicU64,
    conflicts: AtomicU64,
    lost_told: AtomicU64,
    checked: [AtomicU64; Checked::ALL.len()],
    /// By what is wrong with marks: no position, not stored.
    degraded: [Spell; 2],
    trouble: [Spell; 4],
    lost_log: LineLimit,
    violation_log: LineLimit,
}

/// A copy of the [`Stats`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatsSnapshot {
    /// Requests by route (`"primary"` or `"replica"`) and reason; those that occurred.
    pub routed: Vec<(&'static str, Reason, u64)>,
    /// Requests whose writes or reads were recorded with a mark.
    pub marked: u64,
    /// Marks by what made them, whatever became of them.
    pub sources: [(Source, u64); Source::ALL.len()],
    /// Requests of which nobody knows whether they wrote.
    pub unknown_outcomes: u64,
    /// Marks whose position could not be sampled, or which the store did not take.
    pub degraded_marks: u64,
    /// Reads that were served as if they had brought no token, because nobody believes the one that they brought.
    pub unproven: u64,
    /// Tokens that were not believed.
    pub tokens_refused: u64,
    /// Requests that were refused by the layer.
    pub refused: u64,
    /// Writes that the service has turned down because somebody else had written first.
    pub conflicts: u64,
    /// Answers which said that something their session had written or seen did not survive a failover.
    pub lost_told: u64,
    /// Reads that were compared with the primary, by what was found; see [`SpotCheckLayer`](crate::SpotCheckLayer).
    pub checked: [(Checked, u64); Checked::ALL.len()],
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            routed: Default::default(),
            recorded: Default::default(),
            sources: Default::default(),
            unproven: AtomicU64::new(0),
            tokens_refused: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            lost_told: AtomicU64::new(0),
            checked: Default::default(),
            degraded: Default::default(),
            trouble: Default::default(),
            lost_log: LineLimit::default(),
            violation_log: LineLimit::default(),
        }
    }

    /// Whether there may be one more line about a store that gives trouble: it gives the same to every request.
    pub(crate) fn may_log_trouble(&self, what: Trouble) -> bool {
        self.trouble[what as usize].happened().is_some()
    }

    /// One line when marks begin to be degraded, one when that is over, and a sum now and then.
    fn log_degraded(&self, event: Recorded) {
        let what = event.word();
        match event {
            Recorded::WithoutPosition | Recorded::NotStored => {
                let spell = &self.degraded[usize::from(event == Recorded::NotStored)];
                match spell.happened() {
                    Some(News::Begins) => tracing::warn!(what, "a mark is degraded"),
                    Some(News::GoesOn(marks)) => tracing::warn!(what, marks, "marks go on being degraded"),
                    None => {}
                }
            }
            Recorded::Written | Recorded::Read => {
                for (spell, event) in self.degraded.iter().zip([Recorded::WithoutPosition, Recorded::NotStored]) {
                    if let Some(marks) = spell.went_well() {
                        tracing::info!(what = event.word(), marks, "marks are not degraded any more");
                    }
                }
            }
            Recorded::UnknownOutcome => {}
        }
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let mut routed = Vec::new();
        for (route, counters) in ["replica", "primary"].into_iter().zip(&self.routed) {
            for (reason, counter) in Reason::ALL.into_iter().zip(counters) {
                let count = counter.load(Relaxed);
                if count > 0 {
                    routed.push((route, reason, count));
                }
            }
        }
        let recorded = |which: Recorded| self.recorded[which as usize].load(Relaxed);
        StatsSnapshot {
            routed,
            marked: recorded(Recorded::Written) + recorded(Recorded::Read),
            sources: Source::ALL.map(|source| (source, self.sources[source as usize].load(Relaxed))),
            unknown_outcomes: recorded(Recorded::UnknownOutcome),
            degraded_marks: recorded(Recorded::WithoutPosition) + recorded(Recorded::NotStored),
            unproven: self.unproven.load(Relaxed),
            tokens_refused: self.tokens_refused.load(Relaxed),
            refused: self.refused.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            lost_told: self.lost_told.load(Relaxed),
            checked: Checked::ALL.map(|found| (found, self.checked[found as usize].load(Relaxed))),
        }
    }
}

impl Observe for Stats {
    fn routed(&self, event: &Routed<'_>) {
        self.routed[usize::from(event.primary)][event.reason as usize].fetch_add(1, Relaxed);
        if !event.proven && !event.achieved {
            self.unproven.fetch_add(1, Relaxed);
        }
    }

    fn recorded(&self, event: Recorded, source: Source) {
        self.recorded[event as usize].fetch_add(1, Relaxed);
        self.sources[source as usize].fetch_add(1, Relaxed);
        self.log_degraded(event);
    }

    fn token_refused(&self, error: TokenError) {
        self.tokens_refused.fetch_add(1, Relaxed);
        tracing::debug!(%error, "token refused");
    }

    fn lost_told(&self, Lost { epoch, was }: Lost) {
        self.lost_told.fetch_add(1, Relaxed);
        if self.lost_log.may_write() {
            tracing::warn!(epoch = epoch.get(), was = was.get(), "a session is told that acknowledged work is lost");
        }
    }

    fn refused(&self, why: Refused) {
        self.refused.fetch_add(1, Relaxed);
        tracing::debug!(why = why.word(), "request refused");
    }

    fn conflicted(&self) {
        self.conflicts.fetch_add(1, Relaxed);
    }

    fn checked(&self, event: &SpotCheck<'_>) {
        self.checked[event.found as usize].fetch_add(1, Relaxed);
        if event.found == Checked::Violation && self.violation_log.may_write() {
            tracing::error!(
                node = event.node,
                level = event.level.word(),
                required = %event.required,
                "a replica has not shown what a session had to see"
            );
        }
    }
}

/// Logs each decision.
#[derive(Debug, Default)]
pub(crate) struct DecisionLog(LineLimit);

impl DecisionLog {
    /// `path`: of the request, as [`shown`] has it. It is the client's own text, so it goes here and nowhere else.
    pub(crate) fn write(&self, event: &Routed<'_>, path: Option<&str>) {
        if !self.0.may_write() {
            return;
        }
        tracing::info!(
            path,
            session = event.session.map(|session| tracing::field::display(session.tag())),
            read = event.read,
            primary = event.primary,
            node = event.node,
            reason = event.reason.word(),
            level = event.level.word(),
            waited_ms = u64::try_from(event.waited.as_millis()).unwrap_or(u64::MAX),
            achieved = event.achieved,
            proven = event.proven,
            "request routed"
        );
    }
}

/// The longest path that is shown.
const MAX_PATH: usize = 200;

/// A client's path in a line of a log: no longer than a line, and without characters that are none.
pub(crate) fn shown(path: &str) -> Arc<str> {
    let mut shown = String::new();
    for c in path.chars() {
        let is_plain = matches!(c, ' '..='~');
        if shown.len() + if is_plain { 1 } else { c.escape_unicode().len() } > MAX_PATH {
            shown.push('…');
            break;
        }
        if is_plain { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_what_is_no_text_and_is_never_long() {
        assert_eq!(&*shown("/notes/7%0A"), "/notes/7%0A");
        assert_eq!(&*shown("/a\n\u{1b}[31m\u{7f}\u{9b}\u{202e}ü"), "/a\\u{a}\\u{1b}[31m\\u{7f}\\u{9b}\\u{202e}\\u{fc}");
        let long = shown(&"/é".repeat(5000));
        assert!(long.len() <= MAX_PATH + '…'.len_utf8() && long.ends_with('…'), "{long}");
        assert_eq!(shown(&"x".repeat(MAX_PATH)).len(), MAX_PATH);
    }

    #[test]
    fn counts_by_route_and_reason() {
        let stats = Stats::new();
        let event = Routed {
            primary: true,
            node: None,
            reason: Reason::Behind,
            level: Level::ReadYourWrites,
            read: true,
            took: Duration::ZERO,
            waited: Duration::ZERO,
            achieved: true,
            proven: true,
            session: None,
            session_name: None,
        };
        stats.routed(&event);
        stats.routed(&Routed { primary: false, reason: Reason::CaughtUp, ..event });
        stats.routed(&Routed { proven: false, ..event });
        let expected = [("replica", Reason::CaughtUp, 1), ("primary", Reason::Behind, 2)];
        assert_eq!(stats.snapshot().routed, expected);
        stats.routed(&Routed { achieved: false, ..event });
        stats.routed(&Routed { achieved: false, proven: false, ..event });
        assert_eq!(stats.snapshot().unproven, 1, "what was achieved, or was owed, is none");
    }

    #[test]
    fn both_of_two_observers_are_told() {
        let (one, other) = (Arc::new(Stats::new()), Arc::new(Stats::new()));
        let both = (Arc::clone(&one), Arc::clone(&other));
        both.recorded(Recorded::UnknownOutcome, Source::Update);
        both.token_refused(TokenError::Malformed);
        both.lost_told(Lost { epoch: ryw_core::Epoch::new(2), was: ryw_core::Epoch::new(1) });
        for told in [one.snapshot(), other.snapshot()] {
            assert_eq!((told.unknown_outcomes, told.tokens_refused, told.lost_told), (1, 1, 1));
        }
    }
}
