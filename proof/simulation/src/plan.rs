//! What a seed decides before its run begins: settings, and which faults come when.

use std::time::Duration;

use fastrand::Rng;
use ryw_core::seeded::Bug;

use crate::{database::Lag, service::HOSTS, store::HOST as STORE};

/// How long sessions are at work.
pub(crate) const LENGTH: Duration = Duration::from_millis(1500);

/// Where all sessions are.
pub(crate) const CLIENTS: &str = "clients";

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) window: Duration,
    pub(crate) wait: Duration,
    /// Commits wait for a standby, whose confirmation takes so long.
    pub(crate) confirmed_in: Option<Duration>,
    pub(crate) lags: [Lag; 2],
    /// A failover may lose writes.
    pub(crate) is_lossy: bool,
    /// The store may forget.
    pub(crate) forgets: bool,
    pub(crate) capacity: usize,
    pub(crate) ttl: Duration,
    /// How often a write is answered with an error after it was committed, in percent.
    pub(crate) errors: u8,
    /// How often a caller loses its patience, in percent.
    pub(crate) cancels: u8,
    /// How often a handler is busy between the check of a node and its snapshot, in percent.
    pub(crate) busy: u8,
    /// How often the network delivers a store's messages twice, in percent.
    pub(crate) twice: u8,
    pub(crate) skew: Vec<i64>,
    pub(crate) faults: Vec<(Duration, Fault)>,
}

/// What goes wrong at some time.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Lag(usize, Lag),
    Pause(usize, bool),
    CutReplication(usize, bool),
    /// A service does not reach a node.
    CutOff(usize, usize, bool),
    Partition(&'static str, &'static str, bool),
    Hold(&'static str, &'static str, bool),
    StoreTakes(Duration),
    StoreCrash(bool),
    StoreWiped,
    ServiceCrash(usize, bool),
    /// The primary's server is stopped, or started again.
    Primary(bool),
    Replica(usize, bool),
    Replaced(usize),
    /// The primary is gone, or goes on without knowing that another one is going to be promoted.
    Fails {
        goes_on: bool,
    },
    Promote {
        all: bool,
    },
    /// Whoever can follows the new primary.
    Follow,
    /// Whoever can't is rewound.
    Rewind,
    /// Everything is as it should be again.
    Heal,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Plan {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5EED);
        let focus = Focus::of(bug, &mut rng);
        let mut plan = Self {
            window: ms(rng.u64(30..=150)),
            wait: ms(*rng.choice(&[0, 5, 15, 30, 200]).unwrap_or(&5)),
            confirmed_in: focus.is_synchronous.then(|| ms(rng.u64(5..=25))),
            lags: [Self::lag(&mut rng), Self::lag(&mut rng)],
            is_lossy: focus.is_lossy,
            forgets: focus.forgets,
            capacity: if focus.forgets && rng.u8(..3) == 0 { 4 } else { 10_000 },
            ttl: if focus.forgets && rng.bool() { ms(rng.u64(100..=300)) } else { ms(100_000) },
            errors: if focus.is_rough { 30 } else { 4 },
            cancels: if focus.is_rough { 25 } else { 6 },
            busy: if focus.is_even { 60 } else { 15 },
            twice: if focus.is_forgetful { 50 } else { 5 },
            skew: HOSTS.iter().map(|_| if rng.u8(..3) == 0 { rng.i64(-3600..=3600) } else { 0 }).collect(),
            faults: Vec::new(),
        };
        if focus.is_synchronous {
            // What has yet to be confirmed is visible there.
            plan.lags[0] = Lag { receive: ms(1), apply: ms(1) };
        }
        if focus.is_late {
            // Replicas are later than any window.
            plan.window = ms(15);
            plan.lags.iter_mut().for_each(|lag| lag.apply += ms(60));
        }
        if focus.is_even {
            // Two replicas that are hardly apart: what one shows, the other has nearly.
            plan.lags = [Lag { receive: ms(2), apply: ms(rng.u64(4..=12)) }; 2];
        }
        if focus.is_patient {
            plan.wait = ms(200);
        }
        if focus.is_rough {
            plan.window = ms(20);
        }
        let mut at = ms(100);
        while at < LENGTH {
            if focus.is_forgetful {
                plan.faults.push((at, Fault::StoreWiped));
            }
            if focus.is_synchronous {
                plan.both(at, Fault::Replica(1, false), at + ms(rng.u64(8..=20)), Fault::Replica(1, true));
            }
            at += ms(rng.u64(30..=70));
        }
        plan.with_faults(&mut rng)
    }

    fn lag(rng: &mut Rng) -> Lag {
        Lag { receive: ms(rng.u64(1..=6)), apply: ms(rng.u64(1..=40)) }
    }

    fn with_faults(mut self, rng: &mut Rng) -> Self {
        let mut at = ms(80);
        while at < LENGTH {
            at += ms(rng.u64(20..=110));
            let end = at + ms(rng.u64(10..=140));
            let (node, service) = (rng.usize(1..3), rng.usize(..HOSTS.len()));
            let host = HOSTS[service];
            let peer = *rng.choice(&[CLIENTS, STORE, STORE]).unwrap_or(&STORE);
            match rng.u8(..20) {
                0..=4 => {
                    let late = Lag { receive: ms(rng.u64(1..=20)), apply: ms(rng.u64(60..=300)) };
                    self.both(at, Fault::Lag(node, late), end, Fault::Lag(node, self.lags[node - 1]));
                }
                5..=6 => self.both(at, Fault::Pause(node, true), end, Fault::Pause(node, false)),
                7 => self.both(at, Fault::CutReplication(node, true), end, Fault::CutReplication(node, false)),
                8 => {
                    let node = rng.usize(..3);
                    self.both(at, Fault::CutOff(service, node, true), end, Fault::CutOff(service, node, false));
                }
                9 => self.both(at, Fault::Partition(host, peer, true), end, Fault::Partition(host, peer, false)),
                10 => self.both(at, Fault::Hold(host, peer, true), end, Fault::Hold(host, peer, false)),
                11 => {
                    let takes = ms(rng.u64(5..=60));
                    self.both(at, Fault::StoreTakes(takes), end, Fault::StoreTakes(Duration::ZERO));
                }
                12 if self.forgets => self.both(at, Fault::StoreCrash(true), end, Fault::StoreCrash(false)),
                12..=13 if self.forgets => {
                    let times = (0..rng.u64(1..=4)).map(|again| (at + ms(20 * again), Fault::StoreWiped));
                    self.faults.extend(times);
                }
                14 => self.both(at, Fault::ServiceCrash(service, true), end, Fault::ServiceCrash(service, false)),
                15 => self.both(at, Fault::Primary(false), end, Fault::Primary(true)),
                16 => self.both(at, Fault::Replica(node, false), end, Fault::Replica(node, true)),
                17 => self.faults.push((at, Fault::Replaced(node))),
                _ => at = self.failover(at, rng),
            }
        }
        // Healed before the sessions are done, so that what they see then is checked too.
        self.faults.retain(|(at, _)| *at < LENGTH - ms(150));
        self.faults.push((LENGTH - ms(150), Fault::Heal));
        self.faults.sort_by_key(|(at, _)| *at);
        self
    }

    /// Returns when it is over.
    fn failover(&mut self, at: Duration, rng: &mut Rng) -> Duration {
        let loses = self.is_lossy && rng.u8(..4) > 0;
        let goes_on = loses && rng.bool();
        if loses {
            let late = at.saturating_sub(ms(rng.u64(10..=50)));
            self.faults.extend([(late, Fault::CutReplication(1, true)), (late, Fault::CutReplication(2, true))]);
        }
        if self.forgets && rng.bool() {
            self.faults.push((at + ms(rng.u64(0..=40)), Fault::StoreWiped));
        }
        let promoted = at + if goes_on { Duration::ZERO } else { ms(rng.u64(5..=50)) };
        let followed = promoted + ms(rng.u64(3..=30));
        let rewound = followed + ms(rng.u64(20..=140));
        self.faults.extend([
            (at, Fault::Fails { goes_on }),
            (promoted, Fault::Promote { all: !loses }),
            (followed, Fault::Follow),
            (rewound, Fault::Rewind),
        ]);
        rewound
    }

    fn both(&mut self, at: Duration, begins: Fault, end: Duration, ends: Fault) {
        self.faults.extend([(at, begins), (end, ends)]);
    }
}

/// Which kinds of trouble a run is about.
struct Focus {
    is_synchronous: bool,
    is_lossy: bool,
    forgets: bool,
    is_late: bool,
    is_rough: bool,
    is_even: bool,
    is_forgetful: bool,
    is_patient: bool,
}

impl Focus {
    /// A missing guard is looked for where it is needed: in half of the runs for it.
    fn of(bug: Option<Bug>, rng: &mut Rng) -> Self {
        let mut focus = Self {
            is_synchronous: rng.u8(..4) == 0,
            is_lossy: rng.u8(..5) < 2,
            forgets: rng.u8(..5) < 2,
            is_late: rng.u8(..6) == 0,
            is_rough: rng.u8(..6) == 0,
            is_even: rng.u8(..8) == 0,
            is_forgetful: false,
            is_patient: rng.u8(..8) == 0,
        };
        if rng.bool() {
            match bug {
                Some(Bug::PrimaryFresh) => focus.is_synchronous = true,
                Some(Bug::Window) => focus.is_late = true,
                Some(Bug::MrBefore) => (focus.is_even, focus.is_late) = (true, false),
                Some(Bug::NumericTl | Bug::LexiMerge | Bug::TlToctou | Bug::ResetClobber) => {
                    (focus.is_lossy, focus.forgets, focus.is_late) = (true, false, true);
                    focus.is_patient |= bug == Some(Bug::TlToctou);
                }
                Some(Bug::Ttl | Bug::NoFence) => (focus.is_lossy, focus.forgets, focus.is_late) = (false, true, true),
                Some(Bug::StoreLossFailover) => (focus.is_lossy, focus.forgets) = (true, true),
                Some(Bug::Cancel | Bug::ErrNoMark | Bug::Unstick | Bug::StoreOpen) => {
                    (focus.is_lossy, focus.is_late, focus.is_rough) = (false, true, true);
                }
                _ => {}
            }
        }
        focus.is_forgetful = focus.forgets && rng.u8(..3) == 0;
        focus
    }
}
