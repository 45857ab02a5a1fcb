//! Makes a layer of its settings.

use std::{sync::Arc, time::Duration};

use ryw_core::{Keyring, Level, MarkStore};

use super::{RywLayer, RywLayerBuilder};
use crate::{
    clock::Clock,
    config::{Allowance, Budget, Config, Doubts},
    error::{ConfigError, ConfigErrorKind, MAX_WAIT},
    guarded::{Disk, Guarded},
    memory::LocalStore,
    observe::{DecisionLog, Stats},
    outbox::Log,
    policy::Policy,
    window::{AdaptiveWindow, Window},
};

/// The smallest outbox.
const MIN_OUTBOX: u64 = 4096;

impl RywLayerBuilder {
    /// The layer.
    ///
    /// # Errors
    /// [`ConfigError`] says which setting can't be used and what is accepted.
    pub fn build(self) -> Result<RywLayer, ConfigError> {
        self.check()?;
        let Self {
            enabled,
            classify,
            minimum,
            default,
            maximum,
            ladder,
            rules,
            store,
            capacity,
            session_ttl,
            topology,
            keys,
            tenant_of,
            subjects_of,
            window,
            adaptive_window,
            store_deadline,
            outbox,
            outbox_capacity,
            strict_writes,
            sample_deadline,
            token_max_age,
            link_max_age,
            cookie,
            event_ids,
            tell_route,
            primary_budget,
            unproven_reads,
            log_decisions,
            observer,
        } = self;
        let window = adaptive_window.map_or(Window::Fixed(window), Window::Adaptive);
        let minimum = minimum.unwrap_or(Level::ReadYourWrites);
        let mut local = LocalStore::builder();
        local = capacity.map_or(local, |capacity| local.capacity(capacity));
        local = session_ttl.map_or(local, |ttl| local.ttl(ttl));
        if store.is_some() && keys.is_none() {
            tracing::warn!(
                "a mark store was given and no signing key: subjects are filed under keyed hashes, so other instances will \
                 not find these marks"
            );
        }
        let disk = outbox.map(|directory| {
            let (log, recovered) = Log::open(&directory).map_err(ConfigErrorKind::from)?;
            Ok::<_, ConfigErrorKind>(Disk { log, recovered, capacity: outbox_capacity })
        });
        let disk = disk.transpose()?;
        let given_store = store.map(|store| {
            // What this process does not know of its own writes, the store may.
            let own = local.held_at_start(Duration::ZERO).build();
            Guarded::new(store, own, topology.is_some(), store_deadline, disk)
        });
        let (store, local_store): (Arc<dyn MarkStore>, _) = match &given_store {
            Some(given) => (Arc::new(given.clone()), given.own().clone()),
            None => {
                local = if topology.is_some() { local } else { local.held_at_start(window.longest()) };
                let local = local.build();
                (Arc::new(local.clone()), local)
            }
        };
        let keys = match keys {
            Some(keys) => keys,
            None => Keyring::random().map_err(ConfigErrorKind::from)?,
        };
        let config = Config {
            enabled,
            clock: Clock::start(),
            policy: Policy {
                classify,
                minimum,
                default: default.unwrap_or(minimum),
                maximum,
                ladder,
                strict_writes,
                rules,
            },
            store,
            local_store,
            given_store,
            topology,
            doubts: Doubts::default(),
            keys,
            tenant_of,
            subjects_of,
            window,
            sample_deadline,
            token_max_age,
            link_max_age,
            cookie,
            event_ids,
            tell_route,
            budget: Budget::new(primary_budget),
            unproven: Allowance::new(unproven_reads),
            stats: Stats::new(),
            decision_log: log_decisions.then(DecisionLog::default),
            observer,
        };
        Ok(RywLayer { config: Arc::new(config) })
    }

    fn check(&self) -> Result<(), ConfigErrorKind> {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        for (setting, value, max, hint) in [
            ("window", Some(self.window), HOUR, "; to switch enforcement off, use enabled(false)"),
            ("adaptive_window", self.adaptive_window.as_ref().map(AdaptiveWindow::min), HOUR, " as its lower bound"),
            ("adaptive_window", self.adaptive_window.as_ref().map(AdaptiveWindow::max), HOUR, ""),
            ("session_ttl", self.session_ttl, HOUR * 24 * 365, ""),
            ("store_deadline", Some(self.store_deadline), HOUR, ""),
            ("sample_deadline", Some(self.sample_deadline), HOUR, ""),
            ("token_max_age", Some(self.token_max_age), HOUR * 24 * 365, ""),
            ("link_max_age", Some(self.link_max_age), HOUR * 24, ""),
        ] {
            match value {
                Some(Duration::ZERO) => return Err(ConfigErrorKind::Zero { setting, hint }),
                Some(given) if given > max => return Err(ConfigErrorKind::TooLong { setting, given, max }),
                _ => {}
            }
        }
        let hint = "marks in this process are shared with nobody; give the layer a store, or leave the setting out";
        let is_strict = self.strict_writes || self.rules.iter().any(|rule| rule.strict_writes == Some(true));
        for (setting, is_set) in [("outbox", self.outbox.is_some()), ("strict_writes", is_strict)] {
            if is_set && self.store.is_none() {
                return Err(ConfigErrorKind::Missing { setting, needs: "store", hint });
            }
        }
        if self.outbox_capacity < MIN_OUTBOX {
            let (setting, given) = ("outbox_capacity", self.outbox_capacity);
            return Err(ConfigErrorKind::TooSmall { setting, given, min: MIN_OUTBOX });
        }
        if let Some(minimum) = self.minimum
            && self.maximum < minimum
        {
            return Err(ConfigErrorKind::Levels { minimum, maximum: self.maximum });
        }
        for rule in &self.rules {
            let exact = rule.path.strip_suffix('*').unwrap_or(&rule.path);
            if !exact.starts_with('/') || exact.contains('*') {
                return Err(ConfigErrorKind::Path { path: rule.path.clone() });
            }
        }
        let ladders = self.rules.iter().filter_map(|rule| rule.ladder).chain([self.ladder]);
        match ladders.map(|ladder| ladder.wait).max() {
            Some(given) if given > MAX_WAIT => Err(ConfigErrorKind::WaitTooLong { given }),
            _ => Ok(()),
        }
    }
}
