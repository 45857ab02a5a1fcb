//! Where the values are: a primary, and replicas that lag.

mod postgres;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use ryw_postgres::{ConnectError, PoolError, QueryError, tokio_postgres};
use ryw_testing::{
    lagging::{LaggingStore, WriteError},
    servers::postgres::ServerError,
};
use tokio::time::timeout;
use tower_ryw::{NodeName, Route, RywContext, Topology};

use crate::config::BackendOptions;

pub(crate) use postgres::Postgres;

/// How long one request may take in the database.
const DEADLINE: Duration = Duration::from_secs(3);

/// One of the stores that the gateway can stand in front of. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// In this process.
    Embedded(LaggingStore),
    Postgres(Postgres),
}

/// Who chooses the node that serves a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The layer around the request.
    Request,
    /// Nobody: replicas take turns, as a plain load balancer would have it.
    RoundRobin,
}

/// The store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error(transparent)]
    Full(#[from] WriteError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("PostgreSQL: {0}")]
    Sql(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Start(#[from] ServerError),
    #[error("no answer from the database within {} s", DEADLINE.as_secs())]
    TooLate,
    #[error("a task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Backend {
    pub(crate) async fn open(options: &BackendOptions) -> Result<Self, BackendError> {
        if options.postgres {
            return Ok(Self::Postgres(Postgres::start(options.lag()).await?));
        }
        if let Some(primary) = &options.primary {
            return Ok(Self::Postgres(Postgres::connect(primary, &options.replica).await?));
        }
        let replicas = options.replicas.unwrap_or(2).into();
        Ok(Self::Embedded(LaggingStore::builder().replicas(replicas).lag(options.lag()).start()))
    }

    /// In words, for people.
    pub(crate) fn describe(&self) -> String {
        let replicas = self.topology().view().nodes().len() - 1;
        match (self, replicas) {
            (Self::Embedded(_), 1) => "in-process store, 1 replica that lags".to_owned(),
            (Self::Embedded(_), _) => format!("in-process store, {replicas} replicas that lag"),
            (Self::Postgres(_), 1) => "PostgreSQL, 1 primary and 1 standby".to_owned(),
            (Self::Postgres(_), _) => format!("PostgreSQL, 1 primary and {replicas} standbys"),
        }
    }

    pub(crate) fn topology(&self) -> &Topology {
        match self {
            Self::Embedded(store) => store.topology(),
            Self::Postgres(postgres) => postgres.topology(),
        }
    }

    pub(crate) async fn get(&self, via: Via, tenant: &str, key: &str) -> Result<Option<Bytes>, BackendError> {
        match self {
            Self::Embedded(store) => Ok(store.get(&route(via), tenant, key)),
            Self::Postgres(postgres) => in_time(postgres.get(via, tenant, key)).await,
        }
    }

    /// The first `limit` keys and values of a tenant.
    pub(crate) async fn list(&self, via: Via, tenant: &str, limit: u16) -> Result<Vec<(String, Bytes)>, BackendError> {
        match self {
            Self::Embedded(store) => Ok(store.list(&route(via), tenant, limit.into())),
            Self::Postgres(postgres) => in_time(postgres.list(via, tenant, limit)).await,
        }
    }

    /// Stores a value, or deletes it with `None`.
    pub(crate) async fn put(&self, tenant: &str, key: &str, value: Option<Bytes>) -> Result<(), BackendError> {
        match self {
            Self::Embedded(store) => {
                store.put(tenant, key, value)?;
                Ok(())
            }
            Self::Postgres(postgres) => in_time(postgres.put(tenant, key, value)).await,
        }
    }

    /// Names of the replicas.
    pub(crate) fn replicas(&self) -> Vec<NodeName> {
        let view = self.topology().view();
        let primary = view.primary().map(|node| node.name().clone());
        view.nodes().iter().map(|node| node.name().clone()).filter(|name| Some(name) != primary.as_ref()).collect()
    }
}

/// A node that freezes must not hold its requests for as long as it is frozen.
async fn in_time<T>(work: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
    timeout(DEADLINE, work).await.unwrap_or(Err(BackendError::TooLate))
}

fn route(via: Via) -> Route {
    match via {
        Via::Request => RywContext::current().map_or(Route::Primary, |context| context.route()),
        Via::RoundRobin => Route::Replica { node: None },
    }
}
