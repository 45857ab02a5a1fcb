//! Marks in Redis.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use redis::IntoConnectionInfo;
use ryw_core::{
    Loaded, Mark, MarkStore, Marks, Position, Stamp, StoreError, StoreFuture, SubjectKey, Unsettled, Update,
};

use crate::{
    builder::RedisStoreBuilder,
    error::{ConnectError, Failure},
    found::decode,
    keys::KeySpace,
    layout::{Bucket, Entry, Millis},
    node::Replicas,
    reads::{Answer, Seen},
    route::{Route, Servers},
    script::Scripts,
    server::Connection,
};

/// Keeps marks in a Redis or Valkey that instances share. Cheap to clone.
///
/// Redis forgets: in a restart, in a failover to a replica that lags, by `FLUSHALL`, by eviction. This store recognises
/// that, and what may have been forgotten is *unknown* until the primary's position has been sampled, as everywhere in
/// tower-ryw.
///
/// ```no_run
/// # async fn example() -> Result<(), ryw_redis::ConnectError> {
/// use ryw_redis::RedisStore;
///
/// let store = RedisStore::connect("redis://marks.example:6379").await?;
/// # Ok(()) }
/// ```
///
/// A read takes one round trip, and a write another one; a request that carries its token takes none. Requests share a few
/// connections, and what they ask at the same time is sent together.
///
/// # Cancellation
/// The futures can be dropped at any point; a join that was started may still take effect.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) servers: Servers,
    pub(crate) keys: KeySpace,
    pub(crate) scripts: Scripts,
    pub(crate) ttl: Duration,
    deadline: Duration,
    pub(crate) replicas: Option<Replicas>,
}

impl RedisStore {
    /// A store with the default settings, see [`RedisStoreBuilder`].
    ///
    /// # Errors
    /// [`ConnectError`] says what to change.
    pub async fn connect(url: impl IntoConnectionInfo) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// Settings for a store.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::default()
    }

    pub(crate) fn new(
        servers: Servers,
        keys: KeySpace,
        ttl: Duration,
        deadline: Duration,
        replicas: Option<Replicas>,
    ) -> Self {
        Self(Arc::new(Inner { servers, keys, scripts: Scripts::new(), ttl, deadline, replicas }))
    }

    /// The same store, once Redis has answered.
    pub(crate) async fn ready(self) -> Result<Self, ConnectError> {
        self.0.servers.try_connect().await.map(|()| self)
    }
}

impl Inner {
    pub(crate) fn route(&self, key: &SubjectKey) -> Route<'_> {
        self.servers.route(key, self.deadline)
    }

    async fn load(&self, keys: Arc<[SubjectKey]>) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        if let Servers::One(node) = &self.servers {
            let (connection, seen) = node.reads.ask(Arc::clone(&keys)).await?;
            for (key, seen) in keys.iter().zip(seen) {
                self.take(&connection, key, seen, &mut loaded).await?;
            }
            return Ok(loaded);
        }
        for one in try_join_all(keys.iter().map(|key| self.load_from_cluster(key))).await? {
            loaded.marks.join(&one.marks);
            loaded.floor.join(&one.floor);
            loaded.unsettled.extend(one.unsettled);
            loaded.floored.extend(one.floored);
            loaded.has_entry |= one.has_entry;
        }
        Ok(loaded)
    }

    async fn load_from_cluster(&self, key: &SubjectKey) -> Result<Loaded, StoreError> {
        let mut route = self.route(key);
        loop {
            let tried = async {
                let (connection, mut seen) = self.ask(&route, key).await?;
                let seen = seen.pop().ok_or(Failure::Malformed)?;
                let mut loaded = Loaded::default();
                self.take(&connection, key, seen, &mut loaded).await.map(|()| loaded)
            };
            match tried.await {
                Ok(loaded) => return Ok(loaded),
                Err(failure) => route.next(failure).await?,
            }
        }
    }

    async fn ask(&self, route: &Route<'_>, key: &SubjectKey) -> Result<Answer, Failure> {
        match route.reads().await? {
            Some(node) => node.reads.ask(Arc::from([*key])).await,
            None => {
                let connection = route.connection().await?;
                let found = self.read_one(&connection, key).await?;
                Ok((connection, vec![Seen::from(found)]))
            }
        }
    }

    async fn take(
        &self,
        connection: &Connection,
        key: &SubjectKey,
        Seen { entry, bucket }: Seen,
        loaded: &mut Loaded,
    ) -> Result<(), Failure> {
        match bucket {
            Some(bucket) if bucket.incarnation == connection.incarnation() => {
                self.add(connection, key, decode(&entry)?, &bucket, loaded);
            }
            _ => {
                // Seldom, and large.
                let (entry, bucket) = Box::pin(self.renewed(connection, key)).await?;
                self.add(connection, key, entry, &bucket, loaded);
            }
        }
        Ok(())
    }

    fn add(
        &self,
        connection: &Connection,
        key: &SubjectKey,
        entry: Option<Entry>,
        bucket: &Bucket,
        loaded: &mut Loaded,
    ) {
        // Of a new master nothing is settled: another process may still write marks to the one before it.
        let is_new = connection.is_new();
        let is_current = entry.as_ref().is_some_and(|entry| entry.generation == bucket.generation);
        let by_now = || bucket.clone().in_period(self.period(connection));
        if let Some(entry) = entry {
            loaded.has_entry = true;
            // A clock is read only where there is something to compare with it.
            let held = entry.held_until > Millis(0) && entry.held_until > connection.now();
            if held {
                loaded.marks.add(Mark::Pending);
            } else if entry.is_open() && !is_new {
                loaded.unsettled.push(Unsettled { key: *key, stamp: entry.stamp() });
                if is_current && bucket.floor.is_unknown() {
                    // It may have its doubt from there: the answer is good for whoever writes there next, too.
                    loaded.unsettled.push(Unsettled { key: *key, stamp: by_now().stamp() });
                }
            }
            let unknown = entry.marks.is_unknown() && !held;
            loaded.marks.join(&entry.marks.without_unknown());
            if unknown {
                loaded.marks.add(Mark::Unknown);
            }
        }
        if is_current && !is_new {
            return;
        }
        let bucket = by_now();
        let forgets = connection.evicts() || is_new;
        let stamp = match forgets {
            false => bucket.stamp(),
            // It may have lost something a moment ago, and no answer lasts.
            true => Stamp(fastrand::u64(..) >> 6 | 1),
        };
        loaded.floored.push(Unsettled { key: *key, stamp });
        if bucket.floor.is_unknown() || forgets {
            loaded.marks.add(Mark::Unknown);
            loaded.unsettled.push(Unsettled { key: *key, stamp });
        }
        loaded.floor.join(&bucket.floor.without_unknown());
    }

    /// Entries live for two of them at least.
    pub(crate) fn period_length(&self) -> u64 {
        u64::try_from(self.ttl.as_millis() / 2).unwrap_or(u64::MAX)
    }

    /// The period that it is by now, or the next one.
    pub(crate) fn period(&self, connection: &Connection) -> u32 {
        let period = connection.now_at_most().0 / self.period_length();
        // Modulo 2^32, as in the script.
        (period & u64::from(u32::MAX)) as u32
    }
}

impl MarkStore for RedisStore {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        if keys.is_empty() {
            return StoreFuture::ready(Loaded::default());
        }
        let (inner, keys) = (Arc::clone(&self.0), Arc::from(keys));
        StoreFuture::boxed(async move { inner.load(keys).await })
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        if keys.is_empty() {
            return StoreFuture::ready(());
        }
        let (inner, keys, update) = (Arc::clone(&self.0), keys.to_vec(), update.clone());
        StoreFuture::boxed(async move { inner.join(&keys, &update).await })
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let (inner, unsettled) = (Arc::clone(&self.0), unsettled.to_vec());
        StoreFuture::boxed(async move { inner.settle(&unsettled, at).await })
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        let (inner, keys, told) = (Arc::clone(&self.0), keys.to_vec(), told.clone());
        StoreFuture::boxed(async move { inner.acknowledge(&keys, &told).await })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("keys", &self.0.keys).field("ttl", &self.0.ttl).finish_non_exhaustive()
    }
}
