//! How a store is set up.

use std::{sync::Arc, time::Duration};

use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use crate::{
    RedisStore,
    address::{Address, Template},
    cluster::Cluster,
    error::{ConnectError, ConnectErrorKind},
    find::Find,
    keys::KeySpace,
    node::{Node, NodeSettings, Replicas},
    route::Servers,
    sentinel::Sentinels,
    tls::Tls,
};

/// Settings of a [`RedisStore`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisStoreBuilder {
    prefix: String,
    ttl: Duration,
    connections: u32,
    deadline: Duration,
    replicas: Option<Replicas>,
    login: RedisConnectionInfo,
    pub(crate) tls: Tls,
}

impl Default for RedisStoreBuilder {
    fn default() -> Self {
        Self {
            prefix: "ryw".to_owned(),
            ttl: Duration::from_secs(300),
            connections: 4,
            deadline: Duration::from_secs(1),
            replicas: None,
            login: RedisConnectionInfo::default(),
            tls: Tls::default(),
        }
    }
}

impl RedisStoreBuilder {
    /// What all keys begin with, without braces. Default: `ryw`.
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

    /// How many connections to keep to each server, at least 1. Each is shared by many requests. Default: 4.
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

    /// A mark is written when `count` replicas have it too, and not before: Redis' `WAIT`, over connections of its own. When
    /// fewer have it after `timeout` (rounded up to milliseconds), that is an error of the kind
    /// [`TooFewCopies`](ryw_core::StoreErrorKind::TooFewCopies): the layer's answer does not promise that the write is known
    /// to all instances. Reads, and the store as a whole, go on.
    ///
    /// This is no consensus: a replica that has not got the mark may still be promoted, unless `count` is all of them. What
    /// was lost then is *unknown*, as always. What it does rule out is that a master that was cut off from its replicas goes
    /// on taking marks. Default: no replica is waited for.
    pub fn wait_for_replicas(mut self, count: u32, timeout: Duration) -> Self {
        self.replicas = (count > 0).then_some(Replicas { count, timeout });
        self
    }

    /// User, password and database at the servers that Sentinels name. Default: none, and database 0.
    pub fn login(mut self, login: RedisConnectionInfo) -> Self {
        self.login = login;
        self
    }

    /// The store in one Redis, once that has answered.
    ///
    /// # Errors
    /// [`ConnectError`] says what to change.
    pub async fn connect(self, url: impl IntoConnectionInfo) -> Result<RedisStore, ConnectError> {
        self.connect_lazy(url)?.ready().await
    }

    /// The store in one Redis, whether or not that is there now: until it is, marks can't be shared, and say so.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Url`] and [`ConnectErrorKind::Prefix`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazy(self, url: impl IntoConnectionInfo) -> Result<RedisStore, ConnectError> {
        let client = self.tls.client(info(url)?)?;
        let settings = self.settings()?;
        Ok(self.store(Servers::One(Node::new(&settings, Find::At(client)))))
    }

    /// The store in the Redis that Sentinels call master under the name `service`, once that has answered.
    ///
    /// More than half of the `sentinels` have to name the same server, so give all there are. They are asked again every
    /// second: a server that they have replaced, but which still answers, is believed for at most two seconds and the
    /// [deadline](Self::deadline) after that, and the timeout of [`wait_for_replicas`](Self::wait_for_replicas). For as long
    /// after this process has first met a master, nothing that it says is taken for all there is, because other processes,
    /// with the same settings, may still write marks to the one before it.
    ///
    /// With `rediss://` in the first Sentinel's connection string, servers are connected to with TLS as well.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ryw_redis::ConnectError> {
    /// use ryw_redis::RedisStore;
    ///
    /// let sentinels = ["redis://one.example:26379", "redis://two.example:26379", "redis://three.example:26379"];
    /// let store = RedisStore::builder().connect_sentinel("mymaster", sentinels).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`] says what to change.
    pub async fn connect_sentinel<U: IntoConnectionInfo>(
        self,
        service: impl Into<String>,
        sentinels: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, ConnectError> {
        self.connect_sentinel_lazy(service, sentinels)?.ready().await
    }

    /// Like [`connect_sentinel`](Self::connect_sentinel), whether or not a master is there now.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Url`] and [`ConnectErrorKind::Prefix`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_sentinel_lazy<U: IntoConnectionInfo>(
        self,
        service: impl Into<String>,
        sentinels: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, ConnectError> {
        let clients =
            sentinels.into_iter().map(|url| self.tls.client(info(url)?)).collect::<Result<Vec<_>, ConnectError>>()?;
        let Some(first) = clients.first() else { return Err(ConnectError::new(ConnectErrorKind::Url)) };
        let template = Template(first.get_connection_info().clone().set_redis_settings(self.login.clone()));
        let settings = self.settings()?;
        let sentinels = Sentinels::new(service.into(), clients, template, self.deadline);
        Ok(self.store(Servers::One(Node::new(&settings, Find::Sentinel(sentinels)))))
    }

    /// The store in a Redis Cluster, once that has answered. Any of its servers will do to find the others; user, password and
    /// TLS of all of them are those of the first.
    ///
    /// Marks of a slot that moves to another server are *unknown* until the primary has been sampled once. While a slot is
    /// on its way, its marks can be read and written again once both the mark and what belongs to it have arrived, which is
    /// waited for until the [deadline](Self::deadline). A master that is cut off from the others answers until it has
    /// noticed, which takes it `cluster-node-timeout`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ryw_redis::ConnectError> {
    /// use ryw_redis::RedisStore;
    ///
    /// let store = RedisStore::builder().connect_cluster(["redis://one.example", "redis://two.example"]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`] says what to change.
    pub async fn connect_cluster<U: IntoConnectionInfo>(
        self,
        servers: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, ConnectError> {
        self.connect_cluster_lazy(servers)?.ready().await
    }

    /// Like [`connect_cluster`](Self::connect_cluster), whether or not the cluster is there now.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Url`] and [`ConnectErrorKind::Prefix`].
    ///
    /// # Panics
    /// When the store is used outside of a tokio runtime.
    pub fn connect_cluster_lazy<U: IntoConnectionInfo>(
        self,
        servers: impl IntoIterator<Item = U>,
    ) -> Result<RedisStore, ConnectError> {
        let clients =
            servers.into_iter().map(|url| self.tls.client(info(url)?)).collect::<Result<Vec<_>, ConnectError>>()?;
        let seeds: Option<Vec<_>> = clients.iter().map(|client| Address::of(client.get_connection_info())).collect();
        let (Some(first), Some(seeds)) = (clients.first(), seeds) else {
            return Err(ConnectError::new(ConnectErrorKind::Url));
        };
        let template = Template(first.get_connection_info().clone());
        let settings = self.settings()?;
        Ok(self.store(Servers::Cluster(Box::new(Cluster::new(settings, template, seeds)))))
    }

    fn settings(&self) -> Result<NodeSettings, ConnectError> {
        let Self { prefix, connections, deadline, replicas, .. } = self;
        if prefix.contains(['{', '}']) {
            return Err(ConnectError::new(ConnectErrorKind::Prefix));
        }
        let names = Arc::new(KeySpace::new(prefix));
        Ok(NodeSettings { names, connections: *connections, deadline: *deadline, replicas: *replicas })
    }

    fn store(&self, servers: Servers) -> RedisStore {
        RedisStore::new(servers, KeySpace::new(&self.prefix), self.ttl, self.deadline, self.replicas)
    }
}

/// The parser's own error may repeat a part of the password, so it is not kept.
fn info(url: impl IntoConnectionInfo) -> Result<ConnectionInfo, ConnectError> {
    let read = url.into_connection_info().and_then(Client::open);
    read.map(|client| client.get_connection_info().clone()).map_err(|_| ConnectError::new(ConnectErrorKind::Url))
}
