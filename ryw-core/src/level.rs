//! How much was promised.

use std::{cmp::Ordering, fmt, str::FromStr, time::Duration};

/// A consistency level, weakest to strongest.
///
/// Levels are ordered: a request is served at the strongest of what its route demands and what the client asked
/// for. Exact definitions of each are in ARCHITECTURE.md, section "Levels".
///
/// ```
/// use std::time::Duration;
/// use ryw_core::Level;
///
/// assert!(Level::ReadYourWrites < Level::Strong);
/// assert_eq!("ryw".parse(), Ok(Level::ReadYourWrites));
/// assert_eq!("BOUNDED;max=250".parse(), Ok(Level::BoundedStaleness(Duration::from_millis(250))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Any replica will do.
    Eventual,
    /// Every write that was acknowledged longer ago than this, by anybody, is visible.
    BoundedStaleness(Duration),
    /// What the session has seen, it sees again.
    MonotonicReads,
    /// What the session has written, it sees.
    ReadYourWrites,
    /// Read-your-writes, monotonic reads and writes, and writes that follow the session's reads.
    Session,
    /// [`Session`](Self::Session), carried along with messages between services.
    Causal,
    /// Served by the primary; everything acknowledged is visible.
    Strong,
}

/// A level that could not be understood. The text lists what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown consistency level {given:?}: accepted are EVENTUAL, BOUNDED;max=<milliseconds, 1 or more>, MONOTONIC, RYW, \
     SESSION, CAUSAL and STRONG, in any case"
)]
pub struct ParseLevelError {
    given: String,
}

impl Level {
    /// The level's word on the wire, in upper case and without parameters.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Eventual => "EVENTUAL",
            Self::BoundedStaleness(_) => "BOUNDED",
            Self::MonotonicReads => "MONOTONIC",
            Self::ReadYourWrites => "RYW",
            Self::Session => "SESSION",
            Self::Causal => "CAUSAL",
            Self::Strong => "STRONG",
        }
    }

    /// [`word`](Self::word) in lower case, as it appears in a `Ryw-Route` response header.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::BoundedStaleness(_) => "bounded",
            Self::MonotonicReads => "monotonic",
            Self::ReadYourWrites => "ryw",
            Self::Session => "session",
            Self::Causal => "causal",
            Self::Strong => "strong",
        }
    }

    /// Whether a session's own reads raise what it must see from then on.
    #[must_use]
    pub const fn reads_raise_marks(self) -> bool {
        matches!(self, Self::MonotonicReads | Self::Session | Self::Causal)
    }

    /// Whether a session's marks decide where it may read.
    #[must_use]
    pub const fn follows_marks(self) -> bool {
        matches!(self, Self::MonotonicReads | Self::ReadYourWrites | Self::Session | Self::Causal)
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Eventual => 0,
            Self::BoundedStaleness(_) => 1,
            Self::MonotonicReads => 2,
            Self::ReadYourWrites => 3,
            Self::Session => 4,
            Self::Causal => 5,
            Self::Strong => 6,
        }
    }
}

impl Ord for Level {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // The tighter bound is the stronger level.
            (Self::BoundedStaleness(a), Self::BoundedStaleness(b)) => b.cmp(a),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        if let Self::BoundedStaleness(max) = self {
            write!(f, ";max={}", max.as_millis())?;
        }
        Ok(())
    }
}

impl FromStr for Level {
    type Err = ParseLevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (word, parameters) = match text.split_once(';') {
            Some((word, parameters)) => (word.trim(), Some(parameters.trim())),
            None => (text.trim(), None),
        };
        let plain =
            [Self::Eventual, Self::MonotonicReads, Self::ReadYourWrites, Self::Session, Self::Causal, Self::Strong];
        let level = match parameters {
            None => plain.into_iter().find(|level| word.eq_ignore_ascii_case(level.word())),
            Some(parameters) if word.eq_ignore_ascii_case("BOUNDED") => bound(parameters).map(Self::BoundedStaleness),
            Some(_) => None,
        };
        // The text may come from a header: what is repeated in the error is bounded.
        level.ok_or_else(|| ParseLevelError { given: text.chars().take(40).collect() })
    }
}

fn bound(parameters: &str) -> Option<Duration> {
    let digits = parameters.strip_prefix("max=")?;
    let milliseconds: u32 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_in_any_case() {
        for text in ["EVENTUAL", "BOUNDED;max=250", "MONOTONIC", "RYW", "SESSION", "CAUSAL", "STRONG"] {
            let level: Level = text.parse().unwrap();
            assert_eq!(level.to_string(), text);
            assert_eq!(text.to_lowercase().parse(), Ok(level));
            assert_eq!(level.word().to_lowercase(), level.token());
        }
        assert_eq!(" bounded ; max=1 ".parse(), Ok(Level::BoundedStaleness(Duration::from_millis(1))));
    }

    #[test]
    fn refuses_everything_else_and_says_what_is_accepted() {
        for text in [
            "",
            "RYWW",
            "READ",
            "BOUNDED",
            "BOUNDED;",
            "BOUNDED;max=",
            "BOUNDED;max=0",
            "BOUNDED;max=-1",
            "BOUNDED;max=+1",
            "BOUNDED;max=1.5",
            "BOUNDED;max=99999999999",
            "BOUNDED;min=3",
            "RYW;max=3",
            "RYW,STRONG",
            "É",
        ] {
            let error = text.parse::<Level>().unwrap_err().to_string();
            assert!(error.contains("EVENTUAL") && error.contains("STRONG"), "{text}: {error}");
        }
        assert!("x".repeat(10_000).parse::<Level>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn what_a_session_has_seen_and_where_it_may_read_from() {
        let bounded = Level::BoundedStaleness(Duration::from_millis(1));
        for (level, reads_raise_marks, follows_marks) in [
            (Level::Eventual, false, false),
            (bounded, false, false),
            (Level::MonotonicReads, true, true),
            (Level::ReadYourWrites, false, true),
            (Level::Session, true, true),
            (Level::Causal, true, true),
            (Level::Strong, false, false),
        ] {
            assert_eq!(
                (level.reads_raise_marks(), level.follows_marks()),
                (reads_raise_marks, follows_marks),
                "{level}"
            );
        }
    }

    #[test]
    fn is_ordered_weakest_first() {
        let millis = |ms| Level::BoundedStaleness(Duration::from_millis(ms));
        let levels = [
            Level::Eventual,
            millis(500),
            millis(100),
            Level::MonotonicReads,
            Level::ReadYourWrites,
            Level::Session,
            Level::Causal,
            Level::Strong,
        ];
        assert!(levels.is_sorted());
        assert!(levels.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
