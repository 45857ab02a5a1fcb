//! Everything one layer knows: built once, shared by all of its requests.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use ryw_core::{Keyring, MarkStore, Subject, Tenant, Unsettled, wire};
use tokio::time::Instant;

use crate::{
    clock::Clock,
    guarded::Guarded,
    memory::LocalStore,
    observe::{DecisionLog, Observe, Recorded, Refused, Routed, SpotCheck, Stats},
    policy::{Policy, RequestHead, Source},
    topology::Topology,
    window::Window,
};

pub(crate) type TenantOf = dyn Fn(RequestHead<'_>) -> Option<Tenant> + Send + Sync;
pub(crate) type SubjectsOf = dyn Fn(RequestHead<'_>) -> Vec<Subject> + Send + Sync;

/// See [`RywLayerBuilder`](crate::RywLayerBuilder) for the meaning and default of each field.
pub(crate) struct Config {
    pub(crate) enabled: bool,
    pub(crate) clock: Clock,
    pub(crate) policy: Policy,
    pub(crate) store: Arc<dyn MarkStore>,
    /// The same as `store`, when it is the layer's own.
    pub(crate) local_store: LocalStore,
    /// The same as `store`, when it was given to the layer.
    pub(crate) given_store: Option<Guarded>,
    pub(crate) topology: Option<Topology>,
    pub(crate) doubts: Doubts,
    pub(crate) keys: Keyring,
    pub(crate) tenant_of: Option<Box<TenantOf>>,
    pub(crate) subjects_of: Option<Box<SubjectsOf>>,
    pub(crate) window: Window,
    pub(crate) sample_deadline: Duration,
    pub(crate) token_max_age: Duration,
    pub(crate) link_max_age: Duration,
    pub(crate) cookie: CookiePolicy,
    pub(crate) event_ids: bool,
    pub(crate) tell_route: bool,
    pub(crate) budget: Budget,
    pub(crate) unproven: Allowance,
    pub(crate) stats: Stats,
    pub(crate) decision_log: Option<DecisionLog>,
    pub(crate) observer: Option<Arc<dyn Observe>>,
}

/// Whether browsers get a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookiePolicy {
    /// No cookies: clients carry headers.
    Off,
    /// `__Host-ryw`, and `__Host-ryw-` with 8 hexadecimal digits for each session that was begun, which browsers accept over
    /// https (and from localhost) only. Those of a tenant have a dot and 8 digits behind `ryw`. The default.
    Secure,
    /// `ryw` and `ryw-…` without the `Secure` attribute, for development over plain http. Never use it in production.
    InsecureForDevelopment,
}

impl CookiePolicy {
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Secure => Some(wire::COOKIE),
            Self::InsecureForDevelopment => Some(wire::INSECURE_COOKIE),
        }
    }
}

/// When this process has first met what a store does not know: for where there are no positions, and time answers.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Mutex<HashMap<Unsettled, Instant>>);

impl Doubts {
    /// As many as are remembered; those beyond are never over.
    const LIMIT: usize = 65_536;

    /// Whether each of them was met longer than `window` ago. None is no doubt.
    pub(crate) fn are_over(&self, unsettled: &[Unsettled], window: Duration) -> bool {
        if unsettled.is_empty() {
            return false;
        }
        let mut met = self.0.lock();
        if met.len() >= Self::LIMIT {
            met.retain(|_, since| since.elapsed() <= 2 * window);
        }
        let mut over = true;
        for doubt in unsettled {
            let since = match met.get(doubt) {
                Some(since) => *since,
                None if met.len() < Self::LIMIT => *met.entry(*doubt).or_insert_with(Instant::now),
                None => return false,
            };
            over &= since.elapsed() > window;
        }
        over
    }
}

/// Caps the reads that are on the primary only because no replica was fresh enough.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    taken: Arc<AtomicUsize>,
}

/// One such read. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    pub(crate) fn take(&self) -> Option<Permit> {
        let room = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, room).ok()?;
        Some(Permit(Arc::clone(&self.taken)))
    }

    /// How many of how many places are taken.
    pub(crate) fn state(&self) -> (usize, usize) {
        (self.taken.load(Relaxed), self.limit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// So many a second, and as many at once (the generic cell rate algorithm, with one number).
#[derive(Debug)]
pub(crate) struct Allowance {
    per_second: u32,
    /// When those that were taken are over.
    taken_until: Mutex<Option<Instant>>,
}

impl Allowance {
    pub(crate) const fn new(per_second: u32) -> Self {
        Self { per_second, taken_until: Mutex::new(None) }
    }

    /// Whether there is one left; if so, it is taken.
    pub(crate) fn take(&self) -> bool {
        let Some(each) = Duration::from_secs(1).checked_div(self.per_second) else { return false };
        let now = Instant::now();
        let mut taken_until = self.taken_until.lock();
        let until = taken_until.map_or(now, |until| until.max(now)) + each;
        let is_left = until.duration_since(now) <= Duration::from_secs(1);
        if is_left {
            *taken_until = Some(until);
        }
        is_left
    }
}

impl Config {
    /// `path`: where decisions are logged, the request's.
    pub(crate) fn routed(&self, event: &Routed<'_>, path: Option<&str>) {
        self.stats.routed(event);
        if let Some(log) = &self.decision_log {
            log.write(event, path);
        }
        if let Some(observer) = &self.observer {
            observer.routed(event);
        }
    }

    pub(crate) fn recorded(&self, event: Recorded, source: Source) {
        self.stats.recorded(event, source);
        if let Some(observer) = &self.observer {
            observer.recorded(event, source);
        }
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.stats.refused(why);
        if let Some(observer) = &self.observer {
            observer.refused(why);
        }
    }

    pub(crate) fn conflicted(&self) {
        self.stats.conflicted();
        if let Some(observer) = &self.observer {
            observer.conflicted();
        }
    }

    pub(crate) fn lost_told(&self, lost: ryw_core::Lost) {
        self.stats.lost_told(lost);
        if let Some(observer) = &self.observer {
            observer.lost_told(lost);
        }
    }

    pub(crate) fn checked(&self, event: &SpotCheck<'_>) {
        self.stats.checked(event);
        if let Some(observer) = &self.observer {
            observer.checked(event);
        }
    }

    pub(crate) fn token_refused(&self, error: ryw_core::TokenError) {
        self.stats.token_refused(error);
        if let Some(observer) = &self.observer {
            observer.token_refused(error);
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("enabled", &self.enabled)
            .field("policy", &self.policy)
            .field("store", &self.store)
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_number_of_reads_at_a_time() {
        let budget = Budget::new(2);
        let (a, b) = (budget.take(), budget.take());
        assert!(a.is_some() && b.is_some() && budget.take().is_none());
        drop(a);
        assert!(budget.take().is_some());
        assert!(Budget::new(0).take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_is_a_number_a_second_and_comes_back_with_time() {
        let allowance = Allowance::new(5);
        let taken = |allowance: &Allowance| (0..100).filter(|_| allowance.take()).count();
        assert_eq!((taken(&allowance), taken(&allowance)), (5, 0));
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(taken(&allowance), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&allowance), 5, "and does not pile up");
        assert!(!Allowance::new(0).take());
    }
}
