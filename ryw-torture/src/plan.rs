//! What is going to go wrong, and when: the same for the same seed.

use std::{fmt, time::Duration};

/// How a primary is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failover {
    /// The primary is stopped in order. Nothing is lost.
    Switchover,
    /// It is killed. What its heir had not received is lost.
    Crash,
    /// It is cut off for so long, goes on taking writes, and is killed. All of these are lost.
    Lossy(Duration),
}

/// One thing that goes wrong. Standbys and instances are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Failover(Failover),
    /// Replication to a standby is slow.
    Lag {
        standby: usize,
        delay: Duration,
        hold: Duration,
    },
    /// A standby applies late what it has (`recovery_min_apply_delay`).
    ApplyDelay {
        standby: usize,
        delay: Duration,
        hold: Duration,
    },
    /// A standby applies nothing.
    PauseReplay {
        standby: usize,
        hold: Duration,
    },
    /// A standby gets nothing.
    CutReplication {
        standby: usize,
        hold: Duration,
    },
    /// A standby is killed, and comes back.
    KillStandby {
        standby: usize,
        hold: Duration,
    },
    /// The primary is killed and comes back as primary.
    KillPrimary {
        hold: Duration,
    },
    /// All processes of a standby stand still.
    FreezeStandby {
        standby: usize,
        hold: Duration,
    },
    /// An instance of the service is killed, and comes back.
    KillInstance {
        instance: usize,
        hold: Duration,
    },
    /// An instance is killed, and comes back with a wall clock that is wrong by so many seconds. It stays so.
    SkewClock {
        instance: usize,
        seconds: i64,
    },
    /// An instance can't reach Redis.
    CutStore {
        hold: Duration,
    },
    /// An instance can't reach PostgreSQL.
    CutDatabase {
        hold: Duration,
    },
    /// Redis is emptied.
    Flush,
    /// Redis is killed, and comes back empty.
    KillStore {
        hold: Duration,
    },
    /// Redis stands still.
    FreezeStore {
        hold: Duration,
    },
    /// Redis has so little memory that it forgets.
    Evict {
        hold: Duration,
    },
}

/// How many instances of the service there are. The first one's network can be cut.
pub(crate) const INSTANCES: usize = 3;
/// How many standbys there are at a time.
pub(crate) const STANDBYS: usize = 2;

/// What a failover takes, about.
const FAILOVER: Duration = Duration::from_secs(4);

/// Faults for so long a run with so many failovers, in order.
pub(crate) fn plan(seed: u64, length: Duration, failovers: u32) -> Vec<Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut plan = Vec::new();
    let mut bag = Vec::new();
    let slots = failovers.max(1);
    for number in 0..slots {
        let mut left = length / slots;
        if failovers > 0 {
            // The last one loses something, so that somebody is told after all others.
            let kind = if number + 1 == slots { 2 } else { rng.u32(..3) };
            plan.push(Fault::Failover(failover(kind, &mut rng)));
            left = left.saturating_sub(FAILOVER);
        }
        loop {
            // Each kind as often as the others.
            if bag.is_empty() {
                bag.extend(0..KINDS);
                rng.shuffle(&mut bag);
            }
            let Some(kind) = bag.pop() else { break };
            let fault = minor(kind, &mut rng);
            let takes = fault.takes();
            if takes > left {
                bag.push(kind);
                break;
            }
            left -= takes;
            plan.push(fault);
        }
    }
    plan
}

fn failover(kind: u32, rng: &mut fastrand::Rng) -> Failover {
    match kind {
        0 => Failover::Switchover,
        1 => Failover::Crash,
        _ => Failover::Lossy(ms(rng, 50, 400)),
    }
}

const KINDS: u32 = 15;

fn minor(kind: u32, rng: &mut fastrand::Rng) -> Fault {
    let standby = rng.usize(..STANDBYS);
    let instance = rng.usize(..INSTANCES);
    match kind {
        0 => Fault::Lag { standby, delay: ms(rng, 50, 600), hold: ms(rng, 800, 1500) },
        1 => Fault::ApplyDelay { standby, delay: ms(rng, 50, 600), hold: ms(rng, 800, 1500) },
        2 => Fault::PauseReplay { standby, hold: ms(rng, 300, 1200) },
        3 => Fault::CutReplication { standby, hold: ms(rng, 300, 1200) },
        4 => Fault::KillStandby { standby, hold: ms(rng, 50, 500) },
        5 => Fault::KillPrimary { hold: ms(rng, 50, 300) },
        6 => Fault::FreezeStandby { standby, hold: ms(rng, 200, 1200) },
        7 => Fault::KillInstance { instance, hold: ms(rng, 50, 500) },
        8 => Fault::CutStore { hold: ms(rng, 300, 1200) },
        9 => Fault::CutDatabase { hold: ms(rng, 300, 1200) },
        10 => Fault::Flush,
        11 => Fault::KillStore { hold: ms(rng, 50, 500) },
        12 => Fault::FreezeStore { hold: ms(rng, 200, 800) },
        13 => Fault::Evict { hold: ms(rng, 500, 1500) },
        _ => Fault::SkewClock { instance, seconds: rng.i64(-3600..=3600) },
    }
}

fn ms(rng: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

impl Fault {
    /// Its name in counts and pictures; also the lane that it is drawn in.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Failover(Failover::Switchover) => "switchover",
            Self::Failover(Failover::Crash) => "crash failover",
            Self::Failover(Failover::Lossy(_)) => "lossy failover",
            Self::Lag { .. } => "lag spike",
            Self::ApplyDelay { .. } => "apply delay",
            Self::PauseReplay { .. } => "replay pause",
            Self::CutReplication { .. } => "standby cut off",
            Self::KillStandby { .. } => "standby killed",
            Self::KillPrimary { .. } => "primary killed",
            Self::FreezeStandby { .. } => "standby frozen",
            Self::KillInstance { .. } => "instance killed",
            Self::SkewClock { .. } => "clock set wrong",
            Self::CutStore { .. } => "instance cut off from Redis",
            Self::CutDatabase { .. } => "instance cut off from PostgreSQL",
            Self::Flush => "Redis emptied",
            Self::KillStore { .. } => "Redis killed",
            Self::FreezeStore { .. } => "Redis frozen",
            Self::Evict { .. } => "Redis evicts",
        }
    }

    /// How long it lasts at least.
    pub(crate) const fn hold(&self) -> Duration {
        match self {
            Self::Failover(Failover::Lossy(hold))
            | Self::Lag { hold, .. }
            | Self::ApplyDelay { hold, .. }
            | Self::PauseReplay { hold, .. }
            | Self::CutReplication { hold, .. }
            | Self::KillStandby { hold, .. }
            | Self::KillPrimary { hold }
            | Self::FreezeStandby { hold, .. }
            | Self::KillInstance { hold, .. }
            | Self::CutStore { hold }
            | Self::CutDatabase { hold }
            | Self::KillStore { hold }
            | Self::FreezeStore { hold }
            | Self::Evict { hold } => *hold,
            Self::Failover(_) | Self::SkewClock { .. } | Self::Flush => Duration::ZERO,
        }
    }

    /// How long it takes in all, about.
    fn takes(&self) -> Duration {
        self.hold() + Duration::from_millis(700)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Lag { standby, delay, .. } | Self::ApplyDelay { standby, delay, .. } => {
                write!(f, " of {} ms at standby {standby}", delay.as_millis())?;
            }
            Self::PauseReplay { standby, .. }
            | Self::CutReplication { standby, .. }
            | Self::KillStandby { standby, .. }
            | Self::FreezeStandby { standby, .. } => write!(f, " ({standby})")?,
            Self::KillInstance { instance, .. } => write!(f, " ({instance})")?,
            Self::SkewClock { instance, seconds } => write!(f, " by {seconds:+} s ({instance})")?,
            _ => {}
        }
        if self.hold().is_zero() { Ok(()) } else { write!(f, " for {} ms", self.hold().as_millis()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(300);

    #[test]
    fn the_same_seed_is_the_same_plan() {
        assert_eq!(plan(7, LENGTH, 30), plan(7, LENGTH, 30));
        assert_ne!(plan(7, LENGTH, 30), plan(8, LENGTH, 30));
    }

    #[test]
    fn a_long_plan_has_everything() {
        for seed in 0..50 {
            let plan = plan(seed, LENGTH, 30);
            let names: BTreeSet<&str> = plan.iter().map(Fault::name).collect();
            assert_eq!(names.len(), 18, "{names:?}");
            let mut failovers = plan.iter().filter(|fault| matches!(fault, Fault::Failover(_)));
            assert_eq!(failovers.clone().count(), 30);
            assert!(matches!(failovers.next_back(), Some(Fault::Failover(Failover::Lossy(_)))));
        }
    }

    #[test]
    fn a_plan_without_failovers_has_the_rest() {
        let plan = plan(1, Duration::from_secs(60), 0);
        assert!(plan.len() > 20 && plan.iter().all(|fault| !matches!(fault, Fault::Failover(_))));
    }
}
