//! The way of one operation to the server that has its key, wherever that has moved.

use std::{sync::Arc, time::Duration};

use ryw_core::SubjectKey;
use tokio::time::{Instant, sleep};

use crate::{
    address::Address,
    cluster::Cluster,
    error::{ConnectError, Failure, first},
    keys::bucket_number,
    node::{Node, Writer},
    server::Connection,
};

/// Until something that is on its way may have arrived.
const PAUSE: Duration = Duration::from_millis(10);

/// Those who have our keys.
#[derive(Debug)]
pub(crate) enum Servers {
    One(Node),
    Cluster(Box<Cluster>),
}

/// One key's way. Whoever failed asks it what to do [`next`](Self::next).
#[derive(Debug)]
pub(crate) struct Route<'a> {
    servers: &'a Servers,
    bucket: usize,
    until: Instant,
    /// Redirected for this once, while the slot is being moved.
    asking: Option<Address>,
}

impl Servers {
    pub(crate) async fn try_connect(&self) -> Result<(), ConnectError> {
        match self {
            Self::One(node) => node.try_connect().await,
            Self::Cluster(cluster) => cluster.look().await,
        }
    }

    /// The bucket of that key was changed from here.
    pub(crate) fn changed(&self, key: &SubjectKey) {
        // What a cluster has is not kept here.
        if let Self::One(node) = self {
            node.reads.changed(key);
        }
    }

    pub(crate) fn route(&self, key: &SubjectKey, deadline: Duration) -> Route<'_> {
        Route { servers: self, bucket: bucket_number(key), until: Instant::now() + deadline, asking: None }
    }
}

impl Route<'_> {
    /// A connection to the server that has the key.
    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        match self.servers {
            Servers::One(node) => node.connection().await,
            Servers::Cluster(cluster) => {
                let node = self.node(cluster).await?;
                node.connection().await.map(|connection| self.asked_for(connection))
            }
        }
    }

    /// Whoever may be asked together with others: not while redirected.
    pub(crate) async fn reads(&self) -> Result<Option<Arc<Node>>, Failure> {
        match self.servers {
            Servers::Cluster(cluster) if self.asking.is_none() => self.node(cluster).await.map(Some),
            _ => Ok(None),
        }
    }

    /// One for marks.
    pub(crate) async fn writer(&self) -> Result<Writer, Failure> {
        match self.servers {
            Servers::One(node) => node.writer().await,
            Servers::Cluster(cluster) => {
                let mut writer = self.node(cluster).await?.writer().await?;
                writer.connection = self.asked_for(writer.connection);
                Ok(writer)
            }
        }
    }

    async fn node(&self, cluster: &Cluster) -> Result<Arc<Node>, Failure> {
        match &self.asking {
            Some(address) => cluster.node(address).ok_or(Failure::Ended),
            None => self.owner(cluster).await,
        }
    }

    fn asked_for(&self, connection: Connection) -> Connection {
        if self.asking.is_some() { connection.asking() } else { connection }
    }

    /// The server itself, of a key that is not on its way.
    pub(crate) async fn owner(&self, cluster: &Cluster) -> Result<Arc<Node>, Failure> {
        if let Some(node) = cluster.owner(self.bucket) {
            return Ok(node);
        }
        cluster.look().await.map_err(|error| Failure::Connect(Arc::new(error)))?;
        // Somebody else may be looking.
        cluster.owner(self.bucket).ok_or(Failure::Busy)
    }

    /// Returns when it is worth another try, else with the failure.
    pub(crate) async fn next(&mut self, failure: Failure) -> Result<(), Failure> {
        let Servers::Cluster(cluster) = self.servers else { return Err(failure) };
        if Instant::now() + PAUSE >= self.until {
            return Err(failure);
        }
        self.asking = None;
        let redis = match &failure {
            Failure::Redis(error) => error,
            Failure::Connect(_) | Failure::Busy => {
                sleep(PAUSE).await;
                // Its own failure says no more than this one.
                drop(cluster.look().await);
                return Ok(());
            }
            Failure::Malformed | Failure::Replicas(_) | Failure::NewMaster | Failure::Ended => return Err(failure),
        };
        let answer = first(redis);
        let (code, details) = answer.as_ref().map_or(("", ""), |(code, details)| (code.as_str(), details.as_str()));
        let redirected = || details.split(' ').nth(1).and_then(|text| Address::parse(text, &cluster.any()));
        match code {
            "MOVED" => match redirected() {
                Some(address) => cluster.moved(self.bucket, &address),
                None => return Err(failure),
            },
            "ASK" => self.asking = redirected(),
            "TRYAGAIN" => sleep(PAUSE).await,
            "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN" => {
                sleep(PAUSE).await;
                drop(cluster.look().await);
            }
            _ if redis.is_timeout() => return Err(failure),
            _ if redis.is_io_error() || redis.is_unrecoverable_error() => {
                sleep(PAUSE).await;
                drop(cluster.look().await);
            }
            _ => return Err(failure),
        }
        Ok(())
    }
}
