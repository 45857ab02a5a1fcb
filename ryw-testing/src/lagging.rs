//! A primary with replicas that lag, in this process.
//!
//! Writes go to the primary's log and are visible there at once. Each replica applies the log in order, each entry
//! late by its own amount of time. Every replica reports what it has applied into a [`Topology`], as a watcher of a
//! real database would.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ryw_core::{ClusterId, Epoch, Position};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tower_ryw::{
    NodeName, Route, Topology,
    topology::{Reading, Role, Watch},
};

const EPOCH: Epoch = Epoch::new(1);

type Key = (String, String);

/// A primary with replicas that lag. Cheap to clone; the replicas stop when the last clone is dropped.
///
/// Keys have two parts, so that a tenant's keys can be listed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use ryw_testing::lagging::LaggingStore;
/// use tower_ryw::Route;
///
/// let store = LaggingStore::builder().replicas(2).lag(Duration::from_millis(50)).start();
/// store.put("acme", "greeting", Some("hello".into())).unwrap();
/// assert_eq!(store.get(&Route::Primary, "acme", "greeting").unwrap(), "hello");
/// assert_eq!(store.get(&Route::Replica { node: None }, "acme", "greeting"), None, "not replicated yet");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LaggingStore(Arc<Owner>);

/// Settings of a [`LaggingStore`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Builder {
    replicas: usize,
    lag: Duration,
    max_log: usize,
    max_bytes: usize,
}

/// A write was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Replicas are too far behind.
    #[error("the log is full: replicas are too far behind; try again later")]
    LogFull,
    /// The store holds as much as it may.
    #[error("the store is full: delete something first")]
    StoreFull,
}

/// Stops the replicas with the last clone. The tasks themselves hold [`Shared`] only.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    topology: Topology,
    tasks: Vec<JoinHandle<()>>,
    turn: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    cluster: ClusterId,
    lag: Duration,
    max_log: usize,
    max_bytes: usize,
    primary: Mutex<Primary>,
    written: Notify,
    replicas: Vec<Replica>,
}

#[derive(Debug, Default)]
struct Primary {
    data: BTreeMap<Key, Bytes>,
    bytes: usize,
    log: VecDeque<Entry>,
    /// Number of entries ever written: the position.
    end: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    value: Option<Bytes>,
    written_at: Instant,
}

#[derive(Debug)]
struct Replica {
    name: NodeName,
    data: RwLock<BTreeMap<Key, Bytes>>,
    applied: AtomicU64,
    on_apply: OnceLock<OnApply>,
}

struct OnApply(Box<dyn Fn(u64) + Send + Sync>);

impl std::fmt::Debug for OnApply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnApply")
    }
}

impl LaggingStore {
    /// Settings for a store.
    pub const fn builder() -> Builder {
        Builder { replicas: 2, lag: Duration::from_millis(150), max_log: 100_000, max_bytes: 256 << 20 }
    }

    /// The positions of the primary (`primary`) and the replicas (`r1`, `r2`, …).
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.0.topology
    }

    /// Writes a value, or deletes it with `None`, and returns the write's position.
    ///
    /// # Errors
    /// [`WriteError`] when replicas lag by too many entries, or the store is full.
    pub fn put(&self, space: &str, name: &str, value: Option<Bytes>) -> Result<Position, WriteError> {
        let shared = &self.0.shared;
        let key = (space.to_owned(), name.to_owned());
        let size = |value: &Bytes| value.len() + space.len() + name.len();
        let end = {
            let mut primary = shared.primary.lock();
            if primary.log.len() >= shared.max_log {
                return Err(WriteError::LogFull);
            }
            let old = primary.data.get(&key).map_or(0, size);
            let bytes = primary.bytes - old + value.as_ref().map_or(0, size);
            if bytes > shared.max_bytes {
                return Err(WriteError::StoreFull);
            }
            primary.bytes = bytes;
            match &value {
                Some(value) => primary.data.insert(key.clone(), value.clone()),
                None => primary.data.remove(&key),
            };
            primary.log.push_back(Entry { key, value, written_at: Instant::now() });
            primary.end += 1;
            primary.end
        };
        shared.written.notify_waiters();
        Ok(shared.position(end))
    }

    /// Reads a value from where the route says. Unnamed replicas take turns; a name that is not known here means the
    /// primary.
    #[must_use]
    pub fn get(&self, route: &Route, space: &str, name: &str) -> Option<Bytes> {
        let key = (space.to_owned(), name.to_owned());
        match self.replica(route) {
            Some(replica) => replica.data.read().get(&key).cloned(),
            None => self.0.shared.primary.lock().data.get(&key).cloned(),
        }
    }

    /// The first `limit` names and values of a space.
    #[must_use]
    pub fn list(&self, route: &Route, space: &str, limit: usize) -> Vec<(String, Bytes)> {
        let from = (space.to_owned(), String::new());
        let first = |data: &BTreeMap<Key, Bytes>| {
            let of_space = data.range(from.clone()..).take_while(|((other, _), _)| other == space);
            of_space.take(limit).map(|((_, name), value)| (name.clone(), value.clone())).collect()
        };
        match self.replica(route) {
            Some(replica) => first(&replica.data.read()),
            None => first(&self.0.shared.primary.lock().data),
        }
    }

    /// Calls `observe` with the offset of each entry that the replica applies, right after it has become visible
    /// there. Returns false for an unknown replica, and when it is observed already.
    pub fn on_apply(&self, replica: &NodeName, observe: impl Fn(u64) + Send + Sync + 'static) -> bool {
        let replica = self.0.shared.replicas.iter().find(|known| known.name == *replica);
        replica.is_some_and(|replica| replica.on_apply.set(OnApply(Box::new(observe))).is_ok())
    }

    /// `None` for the primary. A name that is not known here falls back to the primary: it is never stale.
    fn replica(&self, route: &Route) -> Option<&Replica> {
        let replicas = &self.0.shared.replicas;
        match route {
            Route::Replica { node: Some(name) } => replicas.iter().find(|replica| replica.name == *name),
            Route::Replica { node: None } => {
                let turn = self.0.turn.fetch_add(1, Relaxed);
                let count = u64::try_from(replicas.len()).unwrap_or(u64::MAX);
                replicas.get(usize::try_from(turn.checked_rem(count)?).ok()?)
            }
            _ => None,
        }
    }
}

impl Builder {
    /// How many replicas. Default: 2.
    pub const fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// How late replicas apply an entry, on average: each entry takes between half and one and a half of it, on each
    /// replica. Default: 150 ms.
    pub const fn lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// How many entries the slowest replica may be behind before writes are refused. Default: 100 000.
    pub const fn max_log(mut self, entries: usize) -> Self {
        self.max_log = entries;
        self
    }

    /// How much the store may hold, in bytes of keys and values. Default: 256 MiB.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Starts the replicas.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(self) -> LaggingStore {
        let Self { replicas, lag, max_log, max_bytes } = self;
        let replica = |number| Replica {
            name: format!("r{number}").into(),
            data: RwLock::default(),
            applied: AtomicU64::new(0),
            on_apply: OnceLock::new(),
        };
        let shared = Arc::new(Shared {
            cluster: ClusterId::new(fastrand::u64(..)),
            lag,
            max_log,
            max_bytes,
            primary: Mutex::default(),
            written: Notify::new(),
            replicas: (1..=replicas).map(replica).collect(),
        });
        let topology = Topology::new();
        let mut primary = topology.add("primary");
        primary.begin().report(Reading::new(Role::Primary, shared.position(0)));
        let mut tasks = vec![tokio::spawn(answer(Arc::clone(&shared), primary))];
        for index in 0..replicas {
            let mut watch = topology.add(shared.replicas[index].name.clone());
            watch.begin().report(Reading::new(Role::Replica, shared.position(0)));
            tasks.push(tokio::spawn(apply(Arc::clone(&shared), index, watch)));
        }
        LaggingStore(Arc::new(Owner { shared, topology, tasks, turn: AtomicU64::new(0) }))
    }
}

impl Shared {
    const fn position(&self, offset: u64) -> Position {
        Position::new(self.cluster, EPOCH, offset)
    }

    /// The entry after `applied`, and when the replica is due to apply it.
    fn next(&self, applied: u64) -> Option<Entry> {
        let primary = self.primary.lock();
        let behind = usize::try_from(primary.end - applied).ok()?;
        let index = primary.log.len().checked_sub(behind)?;
        primary.log.get(index).cloned()
    }

    /// Entries that all replicas have applied are not needed any more.
    fn trim(&self) {
        let slowest = self.replicas.iter().map(|replica| replica.applied.load(Relaxed)).min();
        let mut primary = self.primary.lock();
        let needed = slowest.map_or(0, |slowest| usize::try_from(primary.end - slowest).unwrap_or(usize::MAX));
        let done = primary.log.len().saturating_sub(needed);
        primary.log.drain(..done);
    }
}

/// The primary's watcher: its position is known without asking.
async fn answer(shared: Arc<Shared>, mut watch: Watch) {
    loop {
        let turn = watch.next().await;
        let end = shared.primary.lock().end;
        turn.report(Reading::new(Role::Primary, shared.position(end)));
        if shared.replicas.is_empty() {
            shared.trim();
        }
    }
}

/// One replica, and its watcher.
async fn apply(shared: Arc<Shared>, index: usize, mut watch: Watch) {
    let replica = &shared.replicas[index];
    let mut applied = 0;
    let mut due = None;
    loop {
        let written = shared.written.notified();
        if due.is_none() {
            due =
                shared.next(applied).map(|entry| (entry.written_at + shared.lag.mul_f64(0.5 + fastrand::f64()), entry));
        }
        let Some((at, entry)) = &due else {
            tokio::select! {
                () = written => {}
                turn = watch.next() => turn.report(Reading::new(Role::Replica, shared.position(applied))),
            }
            continue;
        };
        tokio::select! {
            biased;
            () = sleep_until(*at) => {}
            turn = watch.next() => {
                turn.report(Reading::new(Role::Replica, shared.position(applied)));
                continue;
            }
        }
        let Entry { key, value, .. } = entry.clone();
        {
            let mut data = replica.data.write();
            match value {
                Some(value) => data.insert(key, value),
                None => data.remove(&key),
            };
        }
        due = None;
        applied += 1;
        replica.applied.store(applied, Relaxed);
        if let Some(OnApply(observe)) = replica.on_apply.get() {
            observe(applied);
        }
        shared.trim();
        watch.begin().report(Reading::new(Role::Replica, shared.position(applied)));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> Route {
        Route::Replica { node: None }
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_show_a_write_late_and_in_order() {
        let lag = Duration::from_millis(100);
        let store = LaggingStore::builder().replicas(3).lag(lag).start();
        for value in ["1", "2", "3"] {
            store.put("t", "k", Some(value.into())).unwrap();
        }
        assert_eq!(store.get(&Route::Primary, "t", "k").unwrap(), "3");
        tokio::time::sleep(lag.mul_f64(0.45)).await;
        for _ in 0..3 {
            assert_eq!(store.get(&any(), "t", "k"), None);
        }
        tokio::time::sleep(lag.mul_f64(1.1)).await;
        for _ in 0..3 {
            assert_eq!(store.get(&any(), "t", "k").unwrap(), "3");
        }
        store.put("t", "k", None).unwrap();
        assert_eq!(store.get(&Route::Primary, "t", "k"), None);
        assert_eq!(store.get(&any(), "t", "k").unwrap(), "3");
    }

    #[tokio::test(start_paused = true)]
    async fn the_topology_knows_what_a_replica_shows() {
        let store = LaggingStore::builder().replicas(1).start();
        let position = store.put("t", "k", Some("v".into())).unwrap();
        let applied = |store: &LaggingStore| store.topology().view().nodes()[1].applied().unwrap().offset();
        assert_eq!(applied(&store), 0);
        assert_eq!(store.topology().sample_primary().await, Some(position));
        tokio::time::sleep(Duration::from_millis(230)).await;
        assert_eq!(applied(&store), position.offset());
    }

    #[tokio::test(start_paused = true)]
    async fn log_and_store_are_bounded() {
        let store = LaggingStore::builder().max_log(3).max_bytes(10).start();
        assert_eq!(store.put("t", "k", Some("0123456789".into())), Err(WriteError::StoreFull));
        for _ in 0..3 {
            store.put("t", "k", Some("01234567".into())).unwrap();
        }
        assert_eq!(store.put("t", "k", None), Err(WriteError::LogFull));
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.put("t", "k", None).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn lists_one_space_only() {
        let store = LaggingStore::builder().start();
        for (space, name) in [("a", "1"), ("a", "2"), ("b", "1"), ("aa", "1")] {
            store.put(space, name, Some("v".into())).unwrap();
        }
        let names = |space, limit| {
            let list = store.list(&Route::Primary, space, limit);
            list.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            (names("a", 9), names("a", 1), names("c", 9)),
            (vec!["1".into(), "2".into()], vec!["1".into()], vec![])
        );
    }
}
