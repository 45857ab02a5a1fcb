//! Why a request went where it went.

use std::{fmt, str::FromStr};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Why a request was served where it was. A closed set: it labels metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, in the order of their declaration.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$name),+];

            /// The word on the wire.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

reasons! {
    /// The session has no marks to honour.
    NoMarks = "no-marks",
    /// A replica has applied everything the session must see.
    CaughtUp = "caught-up",
    /// A replica applied it while the request waited.
    Waited = "waited",
    /// No replica has applied it yet.
    Behind = "behind",
    /// A write was made within the time window, and there are no positions to be more exact.
    Window = "window",
    /// A write may still be on its way.
    PendingWrite = "pending-write",
    /// Marks may have been forgotten.
    UnknownMarks = "unknown-marks",
    /// The request writes.
    Write = "write",
    /// The level demands the primary.
    Strong = "strong",
    /// The mark store did not answer in time.
    StoreUnavailable = "store-unavailable",
    /// There is no replica that may serve.
    NoReplica = "no-replica",
    /// The primary's budget for reads that replicas should have served is used up.
    Budget = "budget",
    /// The level or the route allows a stale read.
    StaleAllowed = "stale-allowed",
    /// An acknowledged write did not survive a failover.
    Lost = "lost",
    /// The request was repeated on the primary because it turned out to write.
    Replayed = "replayed",
}

/// A word that is no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason")]
pub struct ParseReasonError;

impl FromStr for Reason {
    type Err = ParseReasonError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.word() == word).ok_or(ParseReasonError)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_tokens_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.word().parse(), Ok(reason));
            assert!(reason.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert_eq!("Behind".parse::<Reason>(), Err(ParseReasonError));
    }
}
