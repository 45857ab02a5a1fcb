//! One node's connections, and which servers they lead to.
//!
//! Nothing can be remembered with one of sqlx's connections, so it is remembered with all of them: each is asked when it
//! is made. As long as they have met one server only, a connection's server is known.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sqlx::{Error, PgPool, Postgres, pool::PoolConnection, postgres::PgConnectOptions};
use tokio::time::timeout;
use tower_ryw::{
    NodeName, Topology,
    topology::{Incarnation, NodeState},
};

use super::{ask::identify, options::SqlxOptions};
use crate::backend::Server;

/// How long connections to a server that was replaced may go on with what they are doing; what comes back later is
/// closed then.
const CLOSE: Duration = Duration::from_secs(30);

/// One node's connections.
pub(super) struct Node {
    options: Arc<SqlxOptions>,
    connect: PgConnectOptions,
    current: Mutex<Arc<Generation>>,
}

/// Connections that were made since the node's server was last replaced.
struct Generation {
    pool: PgPool,
    /// The run of the server that the watcher reads, when it was last looked at.
    watched: Mutex<Option<Incarnation>>,
    met: Arc<Mutex<Met>>,
}

/// The servers that connections lead to, or have led to.
#[derive(Debug, Default)]
enum Met {
    #[default]
    Nobody,
    One {
        server: Server,
        /// As the server knows them.
        application_name: String,
    },
    Several,
}

impl Node {
    pub(super) fn new(options: Arc<SqlxOptions>, connect: PgConnectOptions) -> Self {
        let connect = options.changed(connect);
        let current = Mutex::new(Arc::new(Generation::new(&options, &connect, None)));
        Self { options, connect, current }
    }

    /// A connection, and the server that it leads to, where that is known.
    pub(super) async fn acquire(
        &self,
        topology: &Topology,
        name: &NodeName,
    ) -> Result<(PoolConnection<Postgres>, Option<Server>), Error> {
        loop {
            let generation = self.generation(topology, name);
            match generation.pool.acquire().await {
                Ok(connection) => return Ok((connection, generation.met.lock().server())),
                // Replaced while this one waited.
                Err(Error::PoolClosed) if !Arc::ptr_eq(&generation, &self.current.lock()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The name by which the server knows the connections.
    pub(super) fn application_name(&self) -> String {
        let configured = || self.connect.get_application_name().unwrap_or_default().to_owned();
        match &*self.current.lock().met.lock() {
            Met::One { application_name, .. } => application_name.clone(),
            _ => configured(),
        }
    }

    pub(super) async fn close(&self) {
        let pool = self.current.lock().pool.clone();
        pool.close().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.current.lock().pool.is_closed()
    }

    /// The connections to use: new ones when the watcher reads another server than before, and the connections there
    /// are may lead to the old one.
    fn generation(&self, topology: &Topology, name: &NodeName) -> Arc<Generation> {
        let watched = watched(topology, name);
        let mut current = self.current.lock();
        if let Some(run) = watched.filter(|run| current.is_outlived_by(*run) && !current.pool.is_closed()) {
            tracing::debug!(node = %name, "the server was replaced, connections are made anew");
            let new = Arc::new(Generation::new(&self.options, &self.connect, Some(run)));
            let old = std::mem::replace(&mut *current, new);
            // Ends with its deadline at the latest.
            drop(tokio::spawn(async move { timeout(CLOSE, old.pool.close()).await }));
        }
        Arc::clone(&current)
    }
}

impl Generation {
    fn new(options: &SqlxOptions, connect: &PgConnectOptions, watched: Option<Incarnation>) -> Self {
        let met = Arc::new(Mutex::new(Met::default()));
        let (meeting, hook) = (Arc::clone(&met), options.after_connect.clone());
        let pool = options.pool.clone().after_connect(move |connection, _| {
            let (meeting, hook) = (Arc::clone(&meeting), hook.clone());
            Box::pin(async move {
                let (server, application_name) = identify(connection).await?;
                meeting.lock().meet(server, application_name);
                match hook {
                    Some(hook) => hook(connection).await,
                    None => Ok(()),
                }
            })
        });
        Self { pool: pool.connect_lazy_with(connect.clone()), watched: Mutex::new(watched), met }
    }

    fn is_outlived_by(&self, run: Incarnation) -> bool {
        let mut watched = self.watched.lock();
        if *watched == Some(run) {
            return false;
        }
        let outlived = match &*self.met.lock() {
            Met::Nobody => false,
            Met::One { server, .. } => server.incarnation != run,
            Met::Several => true,
        };
        if !outlived {
            *watched = Some(run);
        }
        outlived
    }
}

impl Met {
    fn meet(&mut self, other: Server, application_name: String) {
        match self {
            Self::Nobody => *self = Self::One { server: other, application_name },
            Self::One { server, .. } if *server == other => {}
            _ => *self = Self::Several,
        }
    }

    /// The only one.
    fn server(&self) -> Option<Server> {
        match self {
            Self::One { server, .. } => Some(*server),
            Self::Nobody | Self::Several => None,
        }
    }
}

fn watched(topology: &Topology, name: &NodeName) -> Option<Incarnation> {
    let view = topology.view();
    let node = view.node(name)?;
    let is_read = matches!(node.state(), NodeState::Primary | NodeState::Replica | NodeState::Ejected);
    is_read.then_some(node.incarnation())
}
