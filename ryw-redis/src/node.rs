//! One server, or whoever is the master.

use std::{sync::Arc, time::Duration};

use bb8::{Pool, PooledConnection};

use crate::{
    error::Failure,
    find::Find,
    keys::KeySpace,
    reads::Reads,
    server::{Connection, LOOK, Manager, connection, own_connection},
};

/// What nodes have in common.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    pub(crate) names: Arc<KeySpace>,
    pub(crate) connections: u32,
    pub(crate) deadline: Duration,
    pub(crate) replicas: Option<Replicas>,
}

/// How many replicas have to have a mark, and for how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicas {
    pub(crate) count: u32,
    pub(crate) timeout: Duration,
}

/// Connections, and who asks over them.
#[derive(Debug)]
pub(crate) struct Node {
    pool: Pool<Manager>,
    /// Whoever waits for replicas holds up all others on the same connection.
    waiting: Option<Pool<Manager>>,
    pub(crate) reads: Reads,
}

/// A connection, held as long as nobody else may use it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    _held: Option<PooledConnection<'static, Manager>>,
}

impl Node {
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn new(settings: &NodeSettings, find: Find) -> Self {
        let NodeSettings { names, connections, deadline, replicas } = settings;
        let find = Arc::new(find);
        let patience = deadline.saturating_add(replicas.map_or(Duration::ZERO, |replicas| replicas.timeout));
        let belief = (2 * LOOK).saturating_add(patience);
        let pool = |patience| {
            Pool::builder()
                .max_size(*connections)
                .connection_timeout(*deadline)
                // A connection that fails is noticed by whoever meets it.
                .test_on_check_out(false)
                .build_unchecked(Manager::new(Arc::clone(&find), *deadline, patience, belief))
        };
        let shared = pool(*deadline);
        let reads = Reads::new(shared.clone(), Arc::clone(names));
        Self { pool: shared, waiting: replicas.map(|_| pool(patience)), reads }
    }

    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        connection(&self.pool).await
    }

    /// A connection for marks.
    pub(crate) async fn writer(&self) -> Result<Writer, Failure> {
        match &self.waiting {
            None => Ok(Writer { connection: self.connection().await?, _held: None }),
            Some(pool) => {
                let held = own_connection(pool).await?;
                Ok(Writer { connection: Connection::clone(&held), _held: Some(held) })
            }
        }
    }

    /// Whether the server can be used, in its own words.
    pub(crate) async fn try_connect(&self) -> Result<(), crate::ConnectError> {
        self.pool.dedicated_connection().await.map(drop)
    }
}
