//! How nodes are named, checked and connected to.

use std::{collections::HashSet, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use ryw_core::Epoch;
use tokio::time::timeout;
#[cfg(feature = "bb8")]
use tokio_postgres::CancelToken;
use tokio_postgres::{
    Client, Config, Error, NoTls, Socket,
    tls::{MakeTlsConnect, TlsConnect},
};
use tower_ryw::{
    NodeName, Topology,
    topology::{Role, WaitLimits},
};

use crate::{
    access::{Access, UrlParameter},
    error::{ConnectError, ConnectErrorKind},
    nodes::Nodes,
    reading::{Capture, NodeReading, Reader, Shown},
    watcher::Watchers,
};

/// Makes connections, over whatever TLS was chosen.
#[derive(Clone)]
pub struct MakeClient(Arc<dyn Dial>);

type Dialing<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

trait Dial: Send + Sync {
    fn connect(&self, config: Config) -> Dialing<Client>;
    #[cfg(feature = "bb8")]
    fn cancel(&self, statement: CancelToken) -> Dialing<()>;
}

struct Tls<T>(T);

impl<T> Dial for Tls<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, config: Config) -> Dialing<Client> {
        let tls = self.0.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            // Ends with the connection, which ends when the client is dropped.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection ended");
                }
            });
            Ok(client)
        })
    }

    #[cfg(feature = "bb8")]
    fn cancel(&self, statement: CancelToken) -> Dialing<()> {
        let tls = self.0.clone();
        Box::pin(async move { statement.cancel_query(tls).await })
    }
}

impl MakeClient {
    fn new<T>(tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self(Arc::new(Tls(tls)))
    }

    pub(crate) async fn connect(&self, config: Config) -> Result<Client, Error> {
        self.0.connect(config).await
    }

    /// Asks the server to break off what a connection is doing.
    #[cfg(feature = "bb8")]
    pub(crate) async fn cancel(&self, statement: CancelToken) -> Result<(), Error> {
        self.0.cancel(statement).await
    }
}

impl fmt::Debug for MakeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeClient")
    }
}

/// One node: its name, and how to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: NodeName,
    pub(crate) config: Config,
    pub(crate) make: MakeClient,
}

/// Settings of a pool, or of [`Nodes`] without one. What makes them checks the settings against the real nodes.
#[must_use]
pub struct Builder {
    primary: Option<(String, String)>,
    replicas: Vec<(Option<String>, String)>,
    make: MakeClient,
    #[cfg(feature = "bb8")]
    pub(crate) max_connections: u32,
    pub(crate) connect_deadline: Duration,
    poll_interval: Duration,
    capture: Capture,
    wait_limits: WaitLimits,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            primary: None,
            replicas: Vec::new(),
            make: MakeClient::new(NoTls),
            #[cfg(feature = "bb8")]
            max_connections: 10,
            connect_deadline: Duration::from_secs(5),
            poll_interval: Duration::from_millis(20),
            capture: Capture::Auto,
            wait_limits: WaitLimits::new(),
        }
    }

    /// The node that accepts writes: a `postgres://` URL or `key=value` pairs. It is called `primary`, also when a
    /// failover has made another one the primary.
    pub fn primary(mut self, url: impl Into<String>) -> Self {
        self.primary = Some(("primary".into(), url.into()));
        self
    }

    /// A standby of it. The first is called `r1`, the second `r2`, and so on.
    pub fn replica(mut self, url: impl Into<String>) -> Self {
        self.replicas.push((None, url.into()));
        self
    }

    /// A standby with a name of its own, as it appears in `Ryw-Route`.
    pub fn replica_named(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.replicas.push((Some(name.into()), url.into()));
        self
    }

    /// How the connections that are made with tokio-postgres are encrypted: those of the watchers, and those of
    /// `RywPool`. Default: not at all.
    pub fn tls<T>(mut self, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.make = MakeClient::new(tls);
        self
    }

    /// How many connections a [`RywPool`](crate::RywPool) keeps to each node, besides its watcher's, at least 1.
    /// Default: 10.
    #[cfg(feature = "bb8")]
    #[cfg_attr(docsrs, doc(cfg(feature = "bb8")))]
    pub const fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = if connections == 0 { 1 } else { connections };
        self
    }

    /// How long to wait for a connection. Default: 5 s.
    pub const fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// How often a node's position is read when nobody waits for it, at least every millisecond. Default: 20 ms.
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = if interval.as_millis() == 0 { Duration::from_millis(1) } else { interval };
        self
    }

    /// Which position of the primary stands for what has been committed. Default: [`Capture::Auto`].
    pub const fn capture(mut self, capture: Capture) -> Self {
        self.capture = capture;
        self
    }

    /// How many requests may wait for a replica at a time. Default: [`WaitLimits::new`].
    pub const fn wait_limits(mut self, limits: WaitLimits) -> Self {
        self.wait_limits = limits;
        self
    }

    /// Connects to the nodes, checks that they are one cluster, and starts a watcher for each: for those who have a pool
    /// of their own.
    ///
    /// Nodes that can't be reached now are watched all the same, and serve once they answer; one primary has to be there.
    /// Which one it is, the nodes say: after a failover it may be one that is given here as a replica.
    ///
    /// # Errors
    /// [`ConnectError`] names the node and says what to change.
    pub async fn watch(self) -> Result<Nodes, ConnectError> {
        let targets = self.targets()?;
        self.check_all(&targets).await?;
        let topology = Topology::with_limits(self.wait_limits);
        let mut watchers = Watchers::default();
        for target in &targets {
            let watch = topology.add(target.name.clone()).pause(self.poll_interval);
            watchers.start(watch, target, self.capture);
        }
        watchers.ready(&topology, self.connect_deadline).await;
        Ok(Nodes::new(targets, topology, watchers))
    }

    async fn check_all(&self, targets: &[Arc<Target>]) -> Result<(), ConnectError> {
        let mut found: Vec<(&Target, NodeReading)> = Vec::new();
        let mut accesses = Vec::new();
        let mut unreachable = Vec::new();
        for target in targets {
            match self.check(target).await {
                Ok((reading, access)) => {
                    found.push((target, reading));
                    accesses.push(access);
                }
                Err(error) if error.kind() == ConnectErrorKind::Unreachable => unreachable.push(error),
                Err(error) => return Err(error),
            }
        }
        // Who is asked which cluster this is: whoever is given as the primary, whatever it is now, or else a standby. A
        // server that accepts writes may be of another one, such as a logical subscriber.
        let is_first = |target: &Target| target.name == targets[0].name;
        let vouches = |(target, reading): &&(&Target, NodeReading)| (!is_first(target), reading.role == Role::Primary);
        let reference = found.iter().min_by_key(vouches);
        for (target, reading) in &found {
            let expected = reference.map_or(reading.position, |(_, reading)| reading.position).cluster();
            let other = reading.position.cluster();
            if other != expected {
                let kind = ConnectErrorKind::OtherCluster { primary: expected.get(), replica: other.get() };
                return Err(ConnectError::new(target.name.as_str(), kind));
            }
        }
        let database = accesses.first().map(|access| access.database);
        if let Some(other) = accesses.iter().position(|access| Some(access.database) != database) {
            return Err(ConnectError::new(found[other].0.name.as_str(), ConnectErrorKind::OtherDatabase));
        }
        // Of two that say so, the one in the newer epoch: the other's reign has ended.
        let primaries = || found.iter().filter(|(_, reading)| reading.role == Role::Primary);
        let Some((first, primary)) = primaries().rev().max_by_key(|(_, reading)| reading.position.epoch()) else {
            // The one that accepts writes may be among those that can't be reached, so it is not said to be missing.
            let standbys: Vec<_> = found.iter().map(|(target, _)| target.name.as_str()).collect();
            return Err(match unreachable.into_iter().next() {
                Some(error) if standbys.is_empty() => error,
                Some(error) => {
                    error.with_others(format!("of those that answer ({}) none accepts writes", standbys.join(", ")))
                }
                None => ConnectError::new(targets[0].name.as_str(), ConnectErrorKind::NotAPrimary),
            });
        };
        // Nobody vouches for it, and no standby was ever promoted in the first timeline.
        let alone = reference.is_some_and(|(reference, _)| reference.name == first.name);
        if alone && !is_first(first) && primary.position.epoch() <= Epoch::new(1) {
            let error = ConnectError::new(first.name.as_str(), ConnectErrorKind::NotAReplica);
            return Err(error.with_others(format!("{} itself can't be reached", targets[0].name)));
        }
        let same_epoch = |reading: &NodeReading| reading.position.epoch() == primary.position.epoch();
        match primaries().find(|(target, reading)| target.name != first.name && same_epoch(reading)) {
            Some((second, _)) => Err(ConnectError::new(second.name.as_str(), ConnectErrorKind::NotAReplica)),
            None => {
                for error in unreachable {
                    tracing::warn!(%error, "node is not there yet");
                }
                if let Some(common) = accesses.into_iter().reduce(Access::and) {
                    common.warn();
                }
                Ok(())
            }
        }
    }

    /// Name and connection string of each node, the primary's first.
    pub(crate) fn named(&self) -> Result<Vec<(String, String)>, ConnectError> {
        let primary = self.primary.clone().ok_or_else(|| ConnectError::new("primary", ConnectErrorKind::NoPrimary))?;
        let replicas = (1..).zip(&self.replicas).map(|(number, (name, url))| {
            let name = name.clone().unwrap_or_else(|| format!("r{number}"));
            (name, url.clone())
        });
        Ok(std::iter::once(primary).chain(replicas).collect())
    }

    fn targets(&self) -> Result<Vec<Arc<Target>>, ConnectError> {
        let mut names = HashSet::new();
        let mut targets = Vec::new();
        for (name, url) in self.named()? {
            if !names.insert(name.clone()) {
                return Err(ConnectError::new(name, ConnectErrorKind::DuplicateName));
            }
            // The parser's own error may repeat a part of the password, so it is not kept.
            let parsed = url.parse().map_err(|_: Error| {
                let error = ConnectError::new(name.clone(), ConnectErrorKind::Url);
                match UrlParameter::refused(&url) {
                    Some(parameter) => error.with_source(parameter),
                    None => error,
                }
            });
            let mut config: Config = parsed?;
            if config.get_hosts().is_empty() {
                return Err(ConnectError::new(name, ConnectErrorKind::Url));
            }
            if config.get_connect_timeout().is_none() {
                config.connect_timeout(self.connect_deadline);
            }
            targets.push(Arc::new(Target { name: name.into(), config, make: self.make.clone() }));
        }
        Ok(targets)
    }

    async fn check(&self, target: &Target) -> Result<(NodeReading, Access), ConnectError> {
        let error = |kind| ConnectError::new(target.name.as_str(), kind);
        let connecting = timeout(self.connect_deadline, target.make.connect(target.config.clone()));
        let client = match connecting.await {
            Ok(client) => client.map_err(|source| error(ConnectErrorKind::Unreachable).with_source(source))?,
            Err(source) => return Err(error(ConnectErrorKind::Unreachable).with_source(source)),
        };
        let asking = timeout(self.connect_deadline, async {
            let access = Access::of(&client).await?;
            Ok::<_, Error>((Reader::new(client, self.capture).await?.read(&mut Shown::default()).await?, access))
        });
        match asking.await {
            Ok(Ok((Some(reading), access))) => Ok((reading, access)),
            Ok(Ok((None, _))) => Err(error(ConnectErrorKind::Unreadable)),
            Ok(Err(source)) => Err(error(ConnectErrorKind::Unreadable).with_source(source)),
            Err(source) => Err(error(ConnectErrorKind::Unreadable).with_source(source)),
        }
    }
}

/// Without the URLs, which hold passwords.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("replicas", &self.replicas.len()).finish_non_exhaustive()
    }
}
