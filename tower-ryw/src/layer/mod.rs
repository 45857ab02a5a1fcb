//! How the layer is made: `settings` are what can be said of it, `build` checks them and makes it.

mod build;
mod settings;

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use ryw_core::{Keyring, Level, MarkStore};
use tower_layer::Layer;

use crate::{
    config::{Config, CookiePolicy, SubjectsOf, TenantOf},
    error::ConfigError,
    guarded::{Guarded, StoreHealth},
    memory::LocalStore,
    observe::{Observe, Stats},
    policy::{Classify, Ladder, RouteRule, SafeMethods},
    service::RywService,
    topology::Topology,
    window::AdaptiveWindow,
};

/// Makes any Tower service read-your-writes.
///
/// ```
/// # use axum::{Router, routing::get};
/// use tower_ryw::RywLayer;
///
/// let app: Router = Router::new()
///     .route("/notes/{id}", get(|| async { "a note" }).put(|| async { "saved" }))
///     .layer(RywLayer::new());
/// ```
///
/// With real positions and a key that all instances share:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let topology = tower_ryw::Topology::new();
/// use tower_ryw::{Key, Ladder, Level, RywLayer};
///
/// let layer = RywLayer::builder()
///     .positions(topology)
///     .signing_key(Key::new(1, b"at least 32 bytes from your secret store")?)
///     .level(Level::ReadYourWrites)
///     .ladder(Ladder::new().wait(std::time::Duration::from_millis(20)))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RywLayer {
    pub(super) config: Arc<Config>,
}

/// Settings of a [`RywLayer`]; [`build`](Self::build) checks them.
#[must_use]
pub struct RywLayerBuilder {
    enabled: bool,
    classify: Box<dyn Classify>,
    pub(crate) minimum: Option<Level>,
    default: Option<Level>,
    maximum: Level,
    ladder: Ladder,
    rules: Vec<RouteRule>,
    store: Option<Arc<dyn MarkStore>>,
    capacity: Option<usize>,
    session_ttl: Option<Duration>,
    topology: Option<Topology>,
    keys: Option<Keyring>,
    tenant_of: Option<Box<TenantOf>>,
    subjects_of: Option<Box<SubjectsOf>>,
    window: Duration,
    adaptive_window: Option<AdaptiveWindow>,
    store_deadline: Duration,
    outbox: Option<PathBuf>,
    outbox_capacity: u64,
    strict_writes: bool,
    sample_deadline: Duration,
    token_max_age: Duration,
    link_max_age: Duration,
    cookie: CookiePolicy,
    event_ids: bool,
    tell_route: bool,
    primary_budget: usize,
    unproven_reads: u32,
    log_decisions: bool,
    observer: Option<Arc<dyn Observe>>,
}

impl RywLayer {
    /// A layer with the defaults of [`RywLayerBuilder`]: read-your-writes, marks in this process, sessions by cookie
    /// or `X-Session-ID`. It knows no positions, so a write sends its session to the primary for two seconds.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[must_use]
    #[expect(clippy::expect_used, reason = "defaults are valid; without randomness there are no sessions")]
    pub fn new() -> Self {
        Self::builder().build().expect("the default settings are valid")
    }

    /// Settings for a layer.
    pub fn builder() -> RywLayerBuilder {
        RywLayerBuilder {
            enabled: true,
            classify: Box::new(SafeMethods),
            minimum: None,
            default: None,
            maximum: Level::Strong,
            ladder: Ladder::new(),
            rules: Vec::new(),
            store: None,
            capacity: None,
            session_ttl: None,
            topology: None,
            keys: None,
            tenant_of: None,
            subjects_of: None,
            window: Duration::from_secs(2),
            adaptive_window: None,
            store_deadline: Duration::from_millis(100),
            outbox: None,
            outbox_capacity: 64 << 20,
            strict_writes: false,
            sample_deadline: Duration::from_millis(500),
            token_max_age: Duration::from_secs(24 * 60 * 60),
            link_max_age: Duration::from_secs(5 * 60),
            cookie: CookiePolicy::Secure,
            event_ids: false,
            tell_route: true,
            primary_budget: 256,
            unproven_reads: 5,
            log_decisions: false,
            observer: None,
        }
    }

    /// A layer as the environment says, see [`RywLayerBuilder::from_env`].
    ///
    /// # Errors
    /// [`ConfigErrorKind::Env`](crate::ConfigErrorKind::Env) for a variable that does not parse, and as [`RywLayerBuilder::build`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().from_env()?.build()
    }

    /// Whether it does anything, see [`RywLayerBuilder::enabled`].
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.config.enabled
    }

    /// What the layer has done so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.config.stats
    }

    /// The marks that this process keeps: all there are, or its own writes where the layer was given a store.
    #[must_use]
    pub fn local_store(&self) -> &LocalStore {
        &self.config.local_store
    }

    /// How the mark store that the layer was given is doing; `None` when it keeps marks itself.
    #[must_use]
    pub fn store_health(&self) -> Option<StoreHealth> {
        self.config.given_store.as_ref().map(Guarded::health)
    }

    /// As [`store_health`](Self::store_health), but a store that nobody has heard of for a second is asked first, within the
    /// [deadline](RywLayerBuilder::store_deadline): that of an instance without requests is as old as its last one. Cancelling
    /// it changes nothing.
    pub async fn ask_store(&self) -> Option<StoreHealth> {
        let store = self.config.given_store.as_ref()?;
        store.ask_if_silent().await;
        Some(store.health())
    }

    /// How many of how many places in the primary's [budget](RywLayerBuilder::primary_budget) are taken.
    #[must_use]
    pub fn primary_budget(&self) -> (usize, usize) {
        self.config.budget.state()
    }

    /// A handle that does not keep the layer alive: for those who look at it from time to time.
    #[must_use]
    pub fn downgrade(&self) -> WeakRywLayer {
        WeakRywLayer(Arc::downgrade(&self.config))
    }

    /// The nodes that the layer routes by, if it knows positions.
    #[must_use]
    pub fn topology(&self) -> Option<&Topology> {
        self.config.topology.as_ref()
    }
}

/// A [`RywLayer`], for as long as somebody else has it or serves with it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WeakRywLayer(Weak<Config>);

impl WeakRywLayer {
    /// The layer, if it is still there.
    #[must_use]
    pub fn upgrade(&self) -> Option<RywLayer> {
        self.0.upgrade().map(|config| RywLayer { config })
    }
}

impl Default for RywLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for RywLayer {
    type Service = RywService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RywService::new(inner, Arc::clone(&self.config))
    }
}

impl std::fmt::Debug for RywLayerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RywLayerBuilder").field("minimum", &self.minimum).finish_non_exhaustive()
    }
}
