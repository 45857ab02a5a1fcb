//! How the layer is made.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use ryw_core::{Key, Keyring, Level, MarkStore, Subject, Tenant};
use tower_layer::Layer;

use crate::{
    clock::Clock,
    config::{Budget, Config, CookiePolicy, Doubts, SubjectsOf, TenantOf},
    error::{ConfigError, ConfigErrorKind, MAX_WAIT},
    guarded::{Disk, Guarded, StoreHealth},
    memory::LocalStore,
    observe::{DecisionLog, Observe, Stats},
    outbox::Log,
    policy::{Classify, Ladder, Policy, RequestHead, RouteRule, SafeMethods},
    service::RywService,
    topology::Topology,
    window::{AdaptiveWindow, Window},
};

/// The smallest outbox.
const MIN_OUTBOX: u64 = 4096;

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
    config: Arc<Config>,
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
            log_decisions: false,
            observer: None,
        }
    }

    /// A layer as the environment says, see [`RywLayerBuilder::from_env`].
    ///
    /// # Errors
    /// [`ConfigErrorKind::Env`] for a variable that does not parse, and as [`RywLayerBuilder::build`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().from_env()?.build()
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

impl RywLayerBuilder {
    /// Whether the layer does anything. Default: true.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// How reads are told from writes. Default: [`SafeMethods`].
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.classify = Box::new(classify);
        self
    }

    /// The level that every request is served at, at least. Default: [`Level::ReadYourWrites`].
    pub const fn level(mut self, minimum: Level) -> Self {
        self.minimum = Some(minimum);
        self
    }

    /// The level of requests that don't ask for one; others may ask for less, down to [`level`](Self::level).
    /// Default: the same as [`level`](Self::level).
    pub const fn default_level(mut self, level: Level) -> Self {
        self.default = Some(level);
        self
    }

    /// The strongest level that a client may ask for; more is lowered to it. Default: [`Level::Strong`].
    pub const fn max_level(mut self, maximum: Level) -> Self {
        self.maximum = maximum;
        self
    }

    /// What to do when no replica is fresh enough. Default: [`Ladder::new`].
    pub const fn ladder(mut self, ladder: Ladder) -> Self {
        self.ladder = ladder;
        self
    }

    /// Adds a rule for some paths; the first that matches counts. Default: none.
    pub fn route(mut self, rule: RouteRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Where marks are kept. Default: a [`LocalStore`] of its own. Instances that share a store need the same
    /// [`signing_key`](Self::signing_key), because subjects are filed under keyed hashes.
    ///
    /// A store that fails or is late does not fail requests. Marks are *unknown* while it is away; what it does not take is
    /// kept for up to 100 000 subjects, and delivered before it is believed again. The response to such a write says
    /// `X-Consistency-Enforced: false`: clients that carry its token are safe, others are from the moment on at which it is
    /// delivered. What is kept ends with this process unless there is an [`outbox`](Self::outbox); a write that must not be
    /// made at all then is one for [`strict_writes`](Self::strict_writes).
    ///
    /// What can't be kept makes everybody's marks *unknown*: at once in this process, and, a second after the store has been
    /// told, in all others. A read then waits for a replica that has what the primary had by then.
    pub fn store(mut self, store: impl MarkStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// How many subjects the layer's own [`LocalStore`] keeps; where a store was given, of how many it remembers what this
    /// process has written itself. Default: 1 000 000.
    pub const fn store_capacity(mut self, subjects: usize) -> Self {
        self.capacity = Some(subjects);
        self
    }

    /// How long the layer's own [`LocalStore`] keeps a mark after its last write; a store that was given has a setting of its
    /// own. Default: 5 minutes.
    pub const fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = Some(ttl);
        self
    }

    /// The positions of the primary and its replicas. Default: none, so that a [`window`](Self::window) decides.
    pub fn positions(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// The key that signs tokens; give all instances the same. Default: a random one, good for this process.
    pub fn signing_key(self, key: Key) -> Self {
        self.signing_keys(Keyring::new(key))
    }

    /// Several active keys, for rotation.
    pub fn signing_keys(mut self, keys: Keyring) -> Self {
        self.keys = Some(keys);
        self
    }

    /// The tenant of a request that no other layer has attached a [`Tenant`] to as an extension. It should come from
    /// the authenticated side of the request. Default: one tenant for all.
    pub fn tenant(mut self, of: impl Fn(RequestHead<'_>) -> Option<Tenant> + Send + Sync + 'static) -> Self {
        self.tenant_of = Some(Box::new(of));
        self
    }

    /// Further subjects of a request, besides its session: a user, a resource. A read must see what has been written
    /// about any of them, and a write marks them all. Default: none.
    pub fn subjects(mut self, of: impl Fn(RequestHead<'_>) -> Vec<Subject> + Send + Sync + 'static) -> Self {
        self.subjects_of = Some(Box::new(of));
        self
    }

    /// How long a session stays on the primary after a write whose position is not known: every write, where there
    /// are no positions; otherwise one whose outcome nobody knows. It must be longer than such a write can still take
    /// to commit. Default: 2 s.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// A window that follows a measured delay, instead of a fixed one. Default: none.
    pub fn adaptive_window(mut self, window: AdaptiveWindow) -> Self {
        self.adaptive_window = Some(window);
        self
    }

    /// How long to wait for a mark store that was given with [`store`](Self::store). A request waits for it once: until it
    /// answers again, the next ones do without it at once. Default: 100 ms.
    pub const fn store_deadline(mut self, deadline: Duration) -> Self {
        self.store_deadline = deadline;
        self
    }

    /// Keeps what the [`store`](Self::store) did not take in this directory, which is made if need be, until it does.
    /// Default: none, so that it is kept in memory.
    ///
    /// The answer to a write that the store did not take says `X-Consistency-Enforced: true` once its mark has been synced to
    /// the disk, and `false` when that has taken longer than [`store_deadline`](Self::store_deadline) or could not be done.
    /// **What is promised:** a mark whose answer says `true` is delivered to the store, whatever kills this process, by the
    /// next layer that is built with this directory, and before that layer believes what the store says. Until then no
    /// instance that the store answers knows of it; sessions that carry their tokens, and this process, do. Marks may be
    /// delivered twice, which changes nothing.
    ///
    /// A write that is still on its way (no positions, or an unknown outcome) is held by the wall clock while no process
    /// runs, and never for longer than when it was written down.
    ///
    /// Up to 100 000 subjects are kept, in at most [`outbox_capacity`](Self::outbox_capacity) bytes. Whoever comes after that
    /// is told `false`, and everybody's marks become *unknown*, as described at [`store`](Self::store); also when the next
    /// process finds a file that was damaged. [`RywLayer::store_health`] tells size, age, attempts and what was dropped.
    ///
    /// A directory belongs to one layer of one process at a time, and has to be on a disk that outlives it. Its files are
    /// readable by their owner only; they contain keyed hashes of subjects, and positions.
    ///
    /// ```no_run
    /// # fn with(store: impl tower_ryw::MarkStore) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_ryw::{Key, RywLayer};
    ///
    /// let layer = RywLayer::builder()
    ///     .store(store)
    ///     .signing_key(Key::new(1, b"at least 32 bytes from your secret store")?)
    ///     .outbox("/var/lib/notes/outbox")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// [`build`](Self::build) reads the file and blocks meanwhile, and fails with [`ConfigErrorKind::Outbox`] when the
    /// directory can't be used, for one because another process is using it.
    pub fn outbox(mut self, directory: impl Into<PathBuf>) -> Self {
        self.outbox = Some(directory.into());
        self
    }

    /// The largest that the file of the [`outbox`](Self::outbox) may become, in bytes. Half of it is for marks that wait,
    /// some 90 bytes for most; while the file is replaced by a new one, both exist. Default: 64 MiB; at least 4 KiB.
    pub const fn outbox_capacity(mut self, bytes: u64) -> Self {
        self.outbox_capacity = bytes;
        self
    }

    /// Whether a write is announced in the [`store`](Self::store) before the service is called: its subjects are *pending*
    /// for all instances. A write that can't be announced within [`store_deadline`](Self::store_deadline) is refused with
    /// 503 and `Retry-After` (gRPC: UNAVAILABLE), and the service is not called. Default: false; for some paths only with
    /// [`RouteRule::strict_writes`](crate::RouteRule::strict_writes).
    ///
    /// So whatever happens after that (this process is killed, the store is cut off from it), no instance serves these
    /// subjects a read that misses what commits within the [`window`](Self::window), tokens or not. The price is a round trip
    /// before each write, writes that are refused while the store is away, and reads of these subjects that go to the primary
    /// for the window after the write was announced; with positions, a sample answers after that.
    ///
    /// A write that takes longer than the window is announced again while it runs. Others can miss it all the same
    ///
    /// * when it goes on past the window while the store can't be reached: the answer says `X-Consistency-Enforced: false`, as
    ///   it does whenever the store itself did not take the mark of a strict write, with an [`outbox`](Self::outbox) too;
    /// * when what it had sent to the database commits after the window, and this process is killed before, or can't reach the
    ///   store by then: nobody answers a write that was cut short, and one that is answered with an error may be over later.
    ///
    /// Counts for requests that are classified as writes, and for the session and the subjects that the request names. A read
    /// that turns out to write is not announced, nor are subjects that the handler adds with
    /// [`on_behalf_of`](crate::RywContext::on_behalf_of).
    pub const fn strict_writes(mut self, strict: bool) -> Self {
        self.strict_writes = strict;
        self
    }

    /// How long to wait for the primary's position after a write, or when marks are unknown. Default: 500 ms.
    pub const fn sample_deadline(mut self, deadline: Duration) -> Self {
        self.sample_deadline = deadline;
        self
    }

    /// How old a token may be; an older one makes its session's marks unknown. Default: 24 h.
    pub const fn token_max_age(mut self, age: Duration) -> Self {
        self.token_max_age = age;
        self
    }

    /// How long a [shared link](crate::RywContext::share_link) says something. An older one is ignored; at SESSION and above it
    /// makes the request's marks unknown. At most a day. Default: 5 minutes.
    pub const fn link_max_age(mut self, age: Duration) -> Self {
        self.link_max_age = age;
        self
    }

    /// Whether a token is read from `Last-Event-ID`, which browsers send when they connect again to server-sent events:
    /// what [`RywStream::event_id`](crate::RywStream::event_id) has made, an id of the service's own and a token behind
    /// a semicolon. Any other id is taken for a token that can't be believed: its session's marks are unknown. Default:
    /// false.
    pub const fn event_ids(mut self, read: bool) -> Self {
        self.event_ids = read;
        self
    }

    /// Whether browsers get a cookie. Default: [`CookiePolicy::Secure`].
    pub const fn cookie(mut self, policy: CookiePolicy) -> Self {
        self.cookie = policy;
        self
    }

    /// Whether responses tell who served them, and why, in `Ryw-Route`. Default: true.
    pub const fn tell_route(mut self, tell: bool) -> Self {
        self.tell_route = tell;
        self
    }

    /// How many reads at a time may be on the primary only because no replica is fresh enough. Default: 256.
    pub const fn primary_budget(mut self, reads: usize) -> Self {
        self.primary_budget = reads;
        self
    }

    /// Whether each decision is logged, at level INFO and at most 100 a second. Default: false.
    pub const fn log_decisions(mut self, log: bool) -> Self {
        self.log_decisions = log;
        self
    }

    /// Who else wants to know what the layer does. Default: nobody.
    pub fn observer(mut self, observer: impl Observe) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Sets what the environment says, as the `Environment` table of the README lists it. Where the builder has not
    /// been told a [`level`](Self::level), the minimum is EVENTUAL then, as in that table.
    ///
    /// # Errors
    /// [`ConfigErrorKind::Env`] for a variable that does not parse, and [`ConfigErrorKind::Conflict`] for two windows
    /// that differ.
    pub fn from_env(self) -> Result<Self, ConfigError> {
        crate::env::apply(self, |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

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

impl std::fmt::Debug for RywLayerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RywLayerBuilder").field("minimum", &self.minimum).finish_non_exhaustive()
    }
}
