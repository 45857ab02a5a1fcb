//! What looks like one [`PgPool`](sqlx::PgPool), and follows the current request's route.

mod ask;
mod executor;
mod node;
mod options;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use sqlx::{Acquire, Error, Postgres, Transaction, pool::PoolConnection, postgres::PgConnectOptions};
use tower_ryw::{NodeName, RywContext, Topology, topology::InUse};

use super::{PoolError, PoolErrorKind, Pools, follow, no_replica, reason_of, to_write};
use crate::{
    backend::Server,
    connect::Builder,
    error::{ConnectError, ConnectErrorKind},
    gate::{Admitted, Link},
    nodes::Nodes,
    unfinished::Trace,
};

pub use options::SqlxOptions;

use self::{ask::ask, node::Node};

/// A pool over a primary and its replicas that stands in for sqlx's [`PgPool`](sqlx::PgPool): `&RywSqlxPool` is an
/// [`Executor`](sqlx::Executor) and can be [acquired](Acquire) from. Cheap to clone; the watchers stop when the last
/// clone is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ryw_postgres::{RywSqlxPool, sqlx::{self, postgres::PgPoolOptions}};
/// use tower_ryw::RywLayer;
///
/// let pool = RywSqlxPool::builder()
///     .primary("postgres://app@db-1/app")
///     .replica("postgres://app@db-2/app")
///     .connect_sqlx(PgPoolOptions::new().max_connections(20))
///     .await?;
/// let layer = RywLayer::builder().positions(pool.topology().clone()).build()?;
///
/// // In a handler: the primary or a replica, as the request may see.
/// let notes: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(&pool).await?;
///
/// // A transaction goes there as a whole; one that writes on a route that reads says so.
/// let mut writing = pool.primary().begin().await?;
/// sqlx::query("insert into notes values ($1)").bind("hello").execute(&mut *writing).await?;
/// writing.commit().await?;
/// # Ok(()) }
/// ```
///
/// # Where it goes
///
/// Each statement, transaction and connection goes where the current request's [`RywContext`] says. The context is the
/// one of the task that calls (a stream keeps it, wherever it is polled): tasks that a handler starts need
/// [`RywContext::spawn`], and what runs outside of any request gets the primary.
///
/// The server at a connection's other end has applied what the request must see. Each connection is asked once which
/// server it leads to; as long as all of a node's lead to the one that its watcher reads, nothing more has to be asked.
/// After a server was replaced behind its address the node's connections are made anew.
///
/// # Errors
///
/// They are sqlx's own. A statement that a replica refuses because it writes is run on the primary instead, and the
/// request is marked; one that a replica breaks off (a recovery conflict, a lost connection) is run on another node,
/// unless a part of its rows has been delivered. With a connection or a transaction that was taken from the pool the
/// handler does as it likes: errors of those are told with [`note_sqlx_error`](crate::note_sqlx_error), and a
/// [`ReplayLayer`](tower_ryw::ReplayLayer) makes the request again. Where no node serves, it is an [`Error::Io`] around
/// a [`PoolError`].
///
/// # When a request is cut short
///
/// sqlx doesn't tell which backend a connection belongs to. The session is therefore served by the primary until every
/// backend of this pool has ended the transaction that it had then: the pool gives its connections an
/// `application_name` of their own, unless the URL has one; leave it as it is. A task that goes on writing after its
/// request was cut short needs [`RywContext::spawn`] and [`RywContext::mark_written`].
#[derive(Clone)]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
pub struct RywSqlxPool {
    inner: Arc<Inner>,
    to: To,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Route,
    Primary,
    Replica,
}

struct Inner {
    nodes: Nodes,
    pools: Vec<Node>,
}

/// A connection, and where it is to.
struct Lease {
    connection: PoolConnection<Postgres>,
    /// `None` is the primary.
    replica: Option<NodeName>,
    /// Ends when the connection is handed out: what becomes of it then is not seen.
    _in_use: Option<InUse>,
}

impl RywSqlxPool {
    /// Settings for a pool, which [`Builder::connect_sqlx`] makes.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The positions of the nodes, for [`RywLayerBuilder::positions`](tower_ryw::RywLayerBuilder::positions).
    #[must_use]
    pub fn topology(&self) -> &Topology {
        self.inner.nodes.topology()
    }

    /// The same pool, but always the primary, whatever the route. In a request each use of it counts as a write, because
    /// it can be one.
    #[must_use]
    pub fn primary(&self) -> Self {
        Self { to: To::Primary, ..self.clone() }
    }

    /// The same pool, but always some replica in service, whatever the request must be able to see. Nothing is run
    /// elsewhere when it fails there.
    #[must_use]
    pub fn replica(&self) -> Self {
        Self { to: To::Replica, ..self.clone() }
    }

    /// A connection to where the current request is to be served.
    ///
    /// # Errors
    /// When there is none within the [`acquire_timeout`](sqlx::pool::PoolOptions::acquire_timeout). Cancelling the
    /// future loses nothing.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        Ok(self.lease(RywContext::current().as_ref()).await?.connection)
    }

    /// A transaction where the current request is to be served. It is rolled back when it is dropped.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        begin(self.acquire().await?).await
    }

    /// Gives no more connections, and waits until all are back.
    pub async fn close(&self) {
        join_all(self.inner.pools.iter().map(Node::close)).await;
    }

    async fn lease(&self, context: Option<&RywContext>) -> Result<Lease, Error> {
        let inner = &*self.inner;
        if inner.pools.iter().any(Node::is_closed) {
            return Err(Error::PoolClosed);
        }
        let leased = match (self.to, context) {
            (To::Route, Some(context)) => follow(inner, context, &mut Vec::new()).await,
            (To::Primary, Some(context)) => to_write(inner, context, reason_of(context)).await,
            (To::Replica, _) => inner.any_replica().await,
            (_, None) => inner.primary().await,
        };
        Ok(leased?)
    }
}

impl<'c> Acquire<'c> for &'_ RywSqlxPool {
    type Database = Postgres;
    type Connection = PoolConnection<Postgres>;

    fn acquire(self) -> BoxFuture<'c, Result<Self::Connection, Error>> {
        let (pool, context) = (self.clone(), RywContext::current());
        Box::pin(async move { Ok(pool.lease(context.as_ref()).await?.connection) })
    }

    fn begin(self) -> BoxFuture<'c, Result<Transaction<'c, Postgres>, Error>> {
        let acquired = Acquire::acquire(self);
        Box::pin(async move { begin(acquired.await?).await })
    }
}

impl Builder {
    /// As [`watch`](Self::watch), with a pool of sqlx's connections: [`PgPoolOptions`](sqlx::postgres::PgPoolOptions),
    /// or [`SqlxOptions`] where those are not enough. They hold for each node; connections are made when they are
    /// needed, and within the options' `acquire_timeout`.
    ///
    /// The nodes must be given as URLs. How sqlx's connections are encrypted is up to the URL's `sslmode`, to
    /// [`SqlxOptions::connect`] and to sqlx's features.
    ///
    /// # Errors
    /// [`ConnectError`] names the node and says what to change.
    #[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
    pub async fn connect_sqlx(self, options: impl Into<SqlxOptions>) -> Result<RywSqlxPool, ConnectError> {
        let options = Arc::new(options.into());
        let name = format!("tower-ryw pool {:016x}", fastrand::u64(..));
        let mut pools = Vec::new();
        for (node, url) in self.named()? {
            // The parser's own error may repeat a part of the password, so it is not kept.
            let parsed = url.parse().map_err(|_: Error| ConnectError::new(node, ConnectErrorKind::NotAUrl));
            let connect: PgConnectOptions = parsed?;
            let connect = match connect.get_application_name() {
                Some(_) => connect,
                None => connect.application_name(&name),
            };
            pools.push(Node::new(Arc::clone(&options), connect));
        }
        let nodes = self.watch().await?;
        Ok(RywSqlxPool { inner: Arc::new(Inner { nodes, pools }), to: To::Route })
    }
}

impl Pools for Inner {
    type Connection = Lease;

    fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    async fn read(&self, node: usize, context: &RywContext) -> Result<(Lease, Admitted), PoolError> {
        let (mut lease, server) = self.take(node).await?;
        let link = Link { node: self.nodes.name(node), server, applied: None };
        let admitted = link.admit_read(self.nodes.topology(), context, ask(&mut lease.connection)).await?;
        lease.replica = Some(self.nodes.name(node).clone());
        Ok((lease, admitted))
    }

    async fn write(&self, node: usize) -> Result<(Lease, Admitted, Arc<Trace>), PoolError> {
        let (mut lease, server) = self.take(node).await?;
        let link = Link { node: self.nodes.name(node), server, applied: None };
        let admitted = link.admit_write(self.nodes.topology(), ask(&mut lease.connection)).await?;
        let name = self.pools[node].application_name();
        Ok((lease, admitted, Trace::of_application(&self.nodes, node, admitted, name)))
    }
}

impl Inner {
    async fn primary(&self) -> Result<Lease, PoolError> {
        Ok(self.write(self.nodes.primary()?).await?.0)
    }

    async fn any_replica(&self) -> Result<Lease, PoolError> {
        let node = self.nodes.any_replica(&[]).ok_or_else(no_replica)?;
        let (mut lease, _) = self.take(node).await?;
        lease.replica = Some(self.nodes.name(node).clone());
        Ok(lease)
    }

    /// A connection, and the server that it leads to, where that is known.
    async fn take(&self, node: usize) -> Result<(Lease, Option<Server>), PoolError> {
        let (topology, name) = (self.nodes.topology(), self.nodes.name(node));
        let error_of = |kind| PoolError::new(name.as_str(), kind);
        let acquired = tokio::select! {
            biased;
            acquired = self.pools[node].acquire(topology, name) => acquired,
            () = self.nodes.goes_down(node, Duration::ZERO) => return Err(error_of(PoolErrorKind::Down)),
        };
        let (connection, server) = acquired.map_err(|error| match error {
            Error::PoolTimedOut => error_of(PoolErrorKind::Timeout).with_source(error),
            error => error_of(PoolErrorKind::Connect).with_source(error),
        })?;
        Ok((Lease { connection, replica: None, _in_use: topology.in_use(name) }, server))
    }
}

impl fmt::Debug for RywSqlxPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RywSqlxPool").field("nodes", &self.inner.nodes).field("to", &self.to).finish_non_exhaustive()
    }
}

async fn begin<'c>(connection: PoolConnection<Postgres>) -> Result<Transaction<'c, Postgres>, Error> {
    // Hidden in sqlx's documentation, and what its own pool calls: the connection has to have been looked at before the
    // transaction can take a snapshot.
    Transaction::begin(connection, None).await
}
