//! Marks in one Redis.

use std::{fmt, sync::Arc, time::Duration};

use bb8::{Pool, RunError};
use redis::{Client, IntoConnectionInfo, Pipeline, RedisError};
use ryw_core::{
    Loaded, Mark, MarkStore, Marks, Position, Stamp, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled,
    Update,
};

use crate::{
    error::{ConnectError, ConnectErrorKind, store_error},
    keys::KeySpace,
    layout::{Bucket, Entry, Malformed},
    script::Scripts,
    server::{Connection, Manager},
};

/// How often an entry that somebody else changes at the same time is read again.
const TRIES: usize = 8;

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

struct Inner {
    pool: Pool<Manager>,
    keys: KeySpace,
    scripts: Scripts,
    ttl: Duration,
}

/// Settings of a [`RedisStore`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisStoreBuilder {
    prefix: String,
    ttl: Duration,
    connections: u32,
    deadline: Duration,
}

/// What Redis has about one subject.
struct Found {
    entry_bytes: Vec<u8>,
    bucket_bytes: Vec<u8>,
    entry: Option<Entry>,
    bucket: Option<Bucket>,
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
        RedisStoreBuilder {
            prefix: "ryw".to_owned(),
            ttl: Duration::from_secs(300),
            connections: 4,
            deadline: Duration::from_secs(1),
        }
    }
}

impl RedisStoreBuilder {
    /// What all keys begin with. Default: `ryw`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long to keep a mark after its last write, at least a second; what expires is still covered by a floor that all
    /// who have no mark are held to. Default: 5 minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.clamp(Duration::from_secs(1), Duration::from_secs(365 * 86_400));
        self
    }

    /// How many connections to keep, at least 1. Each is shared by many requests. Default: 4.
    pub const fn connections(mut self, connections: u32) -> Self {
        self.connections = if connections == 0 { 1 } else { connections };
        self
    }

    /// How long to wait for Redis before a connection is given up. The layer that uses the store has a deadline of its own,
    /// usually a shorter one. Default: 1 second.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The store, once Redis has answered.
    ///
    /// # Errors
    /// [`ConnectError`] says what to change.
    pub async fn connect(self, url: impl IntoConnectionInfo) -> Result<RedisStore, ConnectError> {
        let store = self.connect_lazy(url)?;
        // Asked directly, so that its own words are heard.
        match store.0.pool.dedicated_connection().await {
            Ok(_) => Ok(store),
            Err(error) => Err(error),
        }
    }

    /// The store, whether or not Redis is there now: until it is, marks can't be shared, and say so.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Url`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazy(self, url: impl IntoConnectionInfo) -> Result<RedisStore, ConnectError> {
        let Self { prefix, ttl, connections, deadline } = self;
        // The parser's own error may repeat a part of the password, so it is not kept.
        let client = Client::open(url).map_err(|_| ConnectError::new(ConnectErrorKind::Url))?;
        let pool = Pool::builder()
            .max_size(connections)
            .connection_timeout(deadline)
            // A connection that fails is noticed by whoever meets it.
            .test_on_check_out(false)
            .build_unchecked(Manager::new(client, deadline));
        let (keys, scripts) = (KeySpace::new(&prefix), Scripts::new());
        Ok(RedisStore(Arc::new(Inner { pool, keys, scripts, ttl })))
    }
}

impl Inner {
    /// A connection to share with others.
    async fn connection(&self) -> Result<Connection, StoreError> {
        let pooled = self.pool.get().await.map_err(|error| match error {
            RunError::User(error) => StoreError::new(StoreErrorKind::Unavailable).with_source(error),
            RunError::TimedOut => StoreError::new(StoreErrorKind::Unavailable),
        })?;
        let connection = Connection::clone(&pooled);
        connection.look_now_and_then();
        Ok(connection)
    }

    async fn read(&self, connection: &Connection, keys: &[SubjectKey]) -> Result<Vec<Found>, StoreError> {
        let mut reads = Pipeline::with_capacity(2 * keys.len());
        for key in keys {
            // GETEX counts as a write, so it is refused where GET would answer from a replica's old copy.
            reads.cmd("GETEX").arg(self.keys.entry(key)).cmd("GET").arg(self.keys.bucket(key));
        }
        let answer = reads.query_async(&mut connection.redis.clone()).await;
        let values: Vec<Option<Vec<u8>>> = self.noted(connection, answer)?;
        let mut values = values.into_iter().map(Option::unwrap_or_default);
        let mut found = Vec::with_capacity(keys.len());
        while let (Some(entry), Some(bucket)) = (values.next(), values.next()) {
            found.push(Found::new(entry, bucket).map_err(corrupt)?);
        }
        if found.len() == keys.len() { Ok(found) } else { Err(corrupt(Malformed)) }
    }

    async fn load(&self, keys: &[SubjectKey]) -> Result<Loaded, StoreError> {
        let connection = self.connection().await?;
        let mut loaded = Loaded::default();
        for (key, found) in keys.iter().zip(self.read(&connection, keys).await?) {
            let (entry, bucket) = match found.bucket {
                Some(bucket) if bucket.incarnation == connection.incarnation() => (found.entry, bucket),
                _ => self.renewed(&connection, key, found).await?,
            };
            self.add(&connection, key, entry, bucket, &mut loaded);
        }
        Ok(loaded)
    }

    fn add(
        &self,
        connection: &Connection,
        key: &SubjectKey,
        entry: Option<Entry>,
        bucket: Bucket,
        loaded: &mut Loaded,
    ) {
        let now = connection.now();
        let bucket = bucket.in_period(self.period(connection));
        let is_current = entry.as_ref().is_some_and(|entry| entry.generation == bucket.generation);
        if let Some(entry) = entry {
            if entry.held_until > now {
                loaded.marks.add(Mark::Pending);
            } else if entry.is_open() {
                loaded.unsettled.push(Unsettled { key: *key, stamp: entry.stamp() });
            }
            let unknown = entry.marks.is_unknown() && entry.held_until <= now;
            loaded.marks.join(&entry.marks.without_unknown());
            if unknown {
                loaded.marks.add(Mark::Unknown);
            }
        }
        if is_current {
            return;
        }
        let stamp = match connection.evicts() {
            false => bucket.stamp(),
            // It may have lost something a moment ago, and no answer lasts.
            true => Stamp(fastrand::u64(..) >> 6 | 1),
        };
        loaded.floored.push(Unsettled { key: *key, stamp });
        if bucket.floor.is_unknown() || connection.evicts() {
            loaded.marks.add(Mark::Unknown);
            loaded.unsettled.push(Unsettled { key: *key, stamp });
        }
        loaded.floor.join(&bucket.floor.without_unknown());
    }

    /// The server may have lost anything: whoever has no mark of the new generation is held to its floor.
    async fn renewed(
        &self,
        connection: &Connection,
        key: &SubjectKey,
        mut found: Found,
    ) -> Result<(Option<Entry>, Bucket), StoreError> {
        for _ in 0..TRIES {
            let incarnation = connection.incarnation();
            let generation = match &found.bucket {
                Some(bucket) if bucket.incarnation == incarnation => return Ok((found.entry, bucket.clone())),
                Some(bucket) => bucket.generation.wrapping_add(1),
                None => fastrand::u32(..),
            };
            let bucket = Bucket::new(incarnation, generation, self.period(connection));
            tracing::debug!(bucket = key.as_bytes()[0], "Redis may have lost marks: those it has not are unknown");
            if self.exchange(connection, key, &found, None, Some(&bucket)).await? {
                return Ok((found.entry, bucket));
            }
            found = self.read_one(connection, key).await?;
        }
        Err(StoreError::new(StoreErrorKind::Timeout))
    }

    async fn join(&self, keys: &[SubjectKey], update: &Update) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        let marks = update.marks.to_bytes();
        let number = |duration: Duration| duration.as_millis().to_string().into_bytes();
        let hold = number(update.hold.unwrap_or_default());
        let (ttl, period) = (number(self.ttl), self.period_length().to_string().into_bytes());
        let mut calls = Pipeline::with_capacity(keys.len());
        for key in keys {
            let arguments: [&[u8]; 6] =
                [&connection.incarnation().0, &fastrand::u32(..).to_be_bytes(), &hold, &ttl, &period, &marks];
            self.scripts.join.call(&mut calls, [&self.keys.entry(key), &self.keys.bucket(key)], &arguments);
        }
        let answer = self.scripts.join.run::<u8>(&connection, &calls).await;
        self.noted(&connection, answer).map(drop)
    }

    async fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        for Unsettled { key, stamp } in unsettled {
            for _ in 0..TRIES {
                let found = self.read_one(&connection, key).await?;
                let now = connection.now();
                let entry = found.entry.clone().filter(|entry| entry.stamp() == *stamp && entry.held_until <= now);
                let entry = entry.map(|entry| {
                    let marks = entry.marks.clone().without_unknown();
                    Entry { marks: at.map_or(marks.clone(), |at| marks.settled_by(at)), ..entry }
                });
                let of_floor = stamp.0 % 2 == 1;
                let bucket =
                    found.bucket.clone().filter(|bucket| of_floor && bucket.incarnation == connection.incarnation());
                let bucket = bucket.map(|bucket| bucket.in_period(self.period(&connection)).settled(*stamp, at));
                if entry.is_none() && bucket.is_none()
                    || self.exchange(&connection, key, &found, entry.as_ref(), bucket.as_ref()).await?
                {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        for key in keys {
            for _ in 0..TRIES {
                let found = self.read_one(&connection, key).await?;
                let Some(entry) = found.entry.clone() else { break };
                let entry = Entry { marks: entry.marks.clone().without(told), ..entry };
                if self.exchange(&connection, key, &found, Some(&entry), None).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn read_one(&self, connection: &Connection, key: &SubjectKey) -> Result<Found, StoreError> {
        self.read(connection, &[*key]).await?.pop().ok_or_else(|| corrupt(Malformed))
    }

    /// Replaces what was found, when it is still that. `None` leaves it.
    async fn exchange(
        &self,
        connection: &Connection,
        key: &SubjectKey,
        found: &Found,
        entry: Option<&Entry>,
        bucket: Option<&Bucket>,
    ) -> Result<bool, StoreError> {
        let new_entry = entry.map_or_else(|| found.entry_bytes.clone(), Entry::encode);
        let new_bucket = bucket.map_or_else(|| found.bucket_bytes.clone(), Bucket::encode);
        let arguments: [&[u8]; 4] = [&found.entry_bytes, &new_entry, &found.bucket_bytes, &new_bucket];
        let mut calls = Pipeline::with_capacity(1);
        self.scripts.exchange.call(&mut calls, [&self.keys.entry(key), &self.keys.bucket(key)], &arguments);
        let answer = self.scripts.exchange.run::<u8>(connection, &calls).await;
        Ok(self.noted(connection, answer)? == [1])
    }

    fn noted<T>(&self, connection: &Connection, answer: Result<T, RedisError>) -> Result<T, StoreError> {
        answer.map_err(|error| {
            connection.note(&error);
            store_error(error)
        })
    }

    /// Entries live for two of them at least.
    fn period_length(&self) -> u64 {
        u64::try_from(self.ttl.as_millis() / 2).unwrap_or(u64::MAX)
    }

    /// The period that it is by now, or the next one.
    fn period(&self, connection: &Connection) -> u32 {
        let period = connection.now_at_most().0 / self.period_length();
        // Modulo 2^32, as in the script.
        (period & u64::from(u32::MAX)) as u32
    }
}

impl Found {
    fn new(entry_bytes: Vec<u8>, bucket_bytes: Vec<u8>) -> Result<Self, Malformed> {
        let entry = if entry_bytes.is_empty() { None } else { Some(Entry::decode(&entry_bytes)?) };
        let bucket = if bucket_bytes.is_empty() { None } else { Some(Bucket::decode(&bucket_bytes)?) };
        Ok(Self { entry_bytes, bucket_bytes, entry, bucket })
    }
}

fn corrupt(malformed: Malformed) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt).with_source(malformed)
}

impl MarkStore for RedisStore {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        if keys.is_empty() {
            return StoreFuture::ready(Loaded::default());
        }
        let (inner, keys) = (Arc::clone(&self.0), keys.to_vec());
        StoreFuture::boxed(async move { inner.load(&keys).await })
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
