//! Mistakes that the project's own tests can switch on, one at a time, to see which tests notice.
//!
//! Without the feature `seeded-bugs`, [`is_on`] is a constant, and nothing is left of a switch in the compiled code. With it,
//! every switch is off until a test calls `set`, or names it in the environment. Not part of the public API.

/// A guard that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Bug {
    /// Any replica serves any read.
    Naive = 1,
    /// A write is held for a time window, although its position could be known.
    Window,
    /// The position of a write is one that was read before it was committed.
    PreCommit,
    /// A replica is taken to show what it has received, not what it has applied.
    Receive,
    /// One server is asked for its position, and another one is read.
    ProbeOther,
    /// Reads don't raise the session's marks.
    NoMr,
    /// The primary is taken to show whatever a standby shows.
    PrimaryFresh,
    /// The last mark that arrives wins, not the largest.
    NoMax,
    /// Positions are compared as numbers, whatever epoch they are of.
    NumericTl,
    /// What a read has shown is sampled before its snapshot.
    MrBefore,
    /// A store that has forgotten everything takes a late mark for all there is to know of its subject.
    NoFence,
    /// A response leaves before its mark is stored.
    LateMark,
    /// A wait that was in vain ends at the replica that was too late.
    TimeoutOpen,
    /// A request that is cut short leaves no mark.
    Cancel,
    /// A write that was answered with a server error leaves no mark.
    ErrNoMark,
    /// A store that does not answer is taken to know of no marks.
    StoreOpen,
    /// A mark that expires is forgotten, although no replica need have reached it.
    Ttl,
    /// Settling a subject does not look whether it was written to meanwhile.
    Unstick,
    /// A call to another service carries nothing of its request's session.
    NoForward,
    /// Of positions of several epochs only the one of the newest epoch is kept.
    LexiMerge,
    /// After a wait for a replica it is not asked whether a failover has come in between.
    TlToctou,
    /// What a client's token says is ignored: only the store counts.
    StoreLossFailover,
    /// Acknowledging a loss takes away all marks, also those that have come since.
    ResetClobber,
    /// What a called service has answered is not joined into the request's session.
    ReceiveOwnRelay,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Naive,
        Self::Window,
        Self::PreCommit,
        Self::Receive,
        Self::ProbeOther,
        Self::NoMr,
        Self::PrimaryFresh,
        Self::NoMax,
        Self::NumericTl,
        Self::MrBefore,
        Self::NoFence,
        Self::LateMark,
        Self::TimeoutOpen,
        Self::Cancel,
        Self::ErrNoMark,
        Self::StoreOpen,
        Self::Ttl,
        Self::Unstick,
        Self::NoForward,
        Self::LexiMerge,
        Self::TlToctou,
        Self::StoreLossFailover,
        Self::ResetClobber,
        Self::ReceiveOwnRelay,
    ];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }

    /// Its name in the tables of `docs/PROOF.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Window => "window",
            Self::PreCommit => "pre_commit",
            Self::Receive => "receive",
            Self::ProbeOther => "probe_other",
            Self::NoMr => "no_mr",
            Self::PrimaryFresh => "primary_fresh",
            Self::NoMax => "no_max",
            Self::NumericTl => "numeric_tl",
            Self::MrBefore => "mr_before",
            Self::NoFence => "no_fence",
            Self::LateMark => "late_mark",
            Self::TimeoutOpen => "timeout_open",
            Self::Cancel => "cancel",
            Self::ErrNoMark => "err_no_mark",
            Self::StoreOpen => "store_open",
            Self::Ttl => "ttl",
            Self::Unstick => "unstick",
            Self::NoForward => "no_forward",
            Self::LexiMerge => "lexi_merge",
            Self::TlToctou => "tl_toctou",
            Self::StoreLossFailover => "store_loss_failover",
            Self::ResetClobber => "reset_clobber",
            Self::ReceiveOwnRelay => "receive_own_relay",
        }
    }
}

#[cfg(not(feature = "seeded-bugs"))]
mod switch {
    use std::time::Duration;

    /// Whether this guard is missing: never.
    #[must_use]
    pub const fn is_on(_: super::Bug) -> bool {
        false
    }

    /// The wall clock that a test has set: none.
    #[must_use]
    pub const fn wall_clock() -> Option<Duration> {
        None
    }
}

#[cfg(feature = "seeded-bugs")]
mod switch {
    use std::{
        sync::{
            LazyLock, OnceLock,
            atomic::{AtomicU8, Ordering::Relaxed},
        },
        time::Duration,
    };

    use super::Bug;

    /// Names the guard that is missing in every process that is started with it.
    pub const VARIABLE: &str = "RYW_SEEDED_BUG";

    static ON: AtomicU8 = AtomicU8::new(0);
    static NAMED: LazyLock<u8> = LazyLock::new(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        Bug::named(&name).map_or(0, |bug| bug as u8)
    });
    static WALL_CLOCK: OnceLock<fn() -> Option<Duration>> = OnceLock::new();

    /// Whether this guard is missing in this process.
    #[must_use]
    pub fn is_on(bug: Bug) -> bool {
        [ON.load(Relaxed), *NAMED].contains(&(bug as u8))
    }

    /// Takes this guard away, in the whole process, and gives back any other.
    pub fn set(bug: Option<Bug>) {
        ON.store(bug.map_or(0, |bug| bug as u8), Relaxed);
    }

    /// Time since 1970 as a test has set it: `None` where none has.
    #[must_use]
    pub fn wall_clock() -> Option<Duration> {
        WALL_CLOCK.get().and_then(|clock| clock())
    }

    /// A time as a clock has it that is so many seconds ahead; 1970 is the earliest.
    #[must_use]
    pub const fn ahead(time: Duration, seconds: i64) -> Duration {
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { time.saturating_sub(by) } else { time.saturating_add(by) }
    }

    /// Takes the wall clock from here, wherever it answers. The first one that is set stays.
    pub fn set_wall_clock(clock: fn() -> Option<Duration>) {
        let _ = WALL_CLOCK.set(clock);
    }
}

pub use switch::*;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_none_is_on() {
        for (place, bug) in Bug::ALL.iter().enumerate() {
            assert_eq!(*bug as usize, place + 1, "{bug:?} is missing or out of order");
            assert!(Bug::ALL[..place].iter().all(|other| other.name() != bug.name()));
            assert!(!is_on(*bug));
        }
        assert_eq!(wall_clock(), None);
    }
}
