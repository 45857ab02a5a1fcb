//! What can be said of a layer.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ryw_core::{Key, Keyring, Level, MarkStore, Subject, Tenant};

use super::RywLayerBuilder;
use crate::{
    config::CookiePolicy,
    error::ConfigError,
    observe::Observe,
    policy::{Classify, Ladder, RequestHead, RouteRule},
    topology::Topology,
    window::AdaptiveWindow,
};

impl RywLayerBuilder {
    /// Whether the layer does anything. Default: true.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// How reads are told from writes. Default: [`SafeMethods`](crate::SafeMethods).
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

    /// Where marks are kept. Default: a [`LocalStore`](crate::LocalStore) of its own. Instances that share a store need the same
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

    /// How many subjects the layer's own [`LocalStore`](crate::LocalStore) keeps; where a store was given, of how many it remembers what this
    /// process has written itself. Default: 1 000 000.
    pub const fn store_capacity(mut self, subjects: usize) -> Self {
        self.capacity = Some(subjects);
        self
    }

    /// How long the layer's own [`LocalStore`](crate::LocalStore) keeps a mark after its last write; a store that was given has a setting of its
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
    /// process finds a file that was damaged. [`RywLayer::store_health`](crate::RywLayer::store_health) tells size, age, attempts and what was dropped.
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
    /// [`build`](Self::build) reads the file and blocks meanwhile, and fails with [`ConfigErrorKind::Outbox`](crate::ConfigErrorKind::Outbox) when the
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

    /// How old a token may be; an older one is not believed, see [`unproven_reads`](Self::unproven_reads). Default: 24 h.
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

    /// Whether responses of the service tell who served them, and why, in `Ryw-Route`. The layer's own refusals say why in any
    /// case. Default: true.
    pub const fn tell_route(mut self, tell: bool) -> Self {
        self.tell_route = tell;
        self
    }

    /// How many reads at a time may be on the primary only because no replica is fresh enough. Default: 256.
    pub const fn primary_budget(mut self, reads: usize) -> Self {
        self.primary_budget = reads;
        self
    }

    /// How many reads a second the primary may serve for tokens that can't be believed (forged, damaged, signed with a key that is
    /// not active any more) where no replica has what they say. Default: 5.
    ///
    /// Such a read never waits. Beyond this number a replica serves it as if there were no token, and the response says
    /// `X-Consistency-Enforced: false` and `reason=unknown-marks`. Whoever has such a token for an honest reason needs the
    /// primary at most once, as long as the answer replaces it (cookies, named sessions).
    pub const fn unproven_reads(mut self, per_second: u32) -> Self {
        self.unproven_reads = per_second;
        self
    }

    /// Whether each decision is logged, at level INFO and at most 100 a second, with the request's path (without its query)
    /// and the session's [tag](ryw_core::SubjectKey::tag). Default: false.
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
    /// [`ConfigErrorKind::Env`](crate::ConfigErrorKind::Env) for a variable that does not parse, and [`ConfigErrorKind::Conflict`](crate::ConfigErrorKind::Conflict) for two windows
    /// that differ.
    pub fn from_env(self) -> Result<Self, ConfigError> {
        crate::env::apply(self, |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }
}
