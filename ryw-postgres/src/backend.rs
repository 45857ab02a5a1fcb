//! Which server process is at the other end of a connection, and what is known of it.

use std::time::Duration;

use ryw_core::ClusterId;
#[cfg(feature = "bb8")]
use tokio_postgres::{Client, Error};
use tower_ryw::topology::Incarnation;

use crate::reading::NodeReading;
#[cfg(feature = "bb8")]
use crate::reading::{CLUSTER, STARTED};

/// One run of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: ClusterId,
}

impl Server {
    /// From what the server says: when it was [started](crate::reading::STARTED), and its system identifier.
    pub(crate) fn new(started: i64, cluster: i64) -> Self {
        Self { incarnation: Incarnation(started.cast_unsigned()), cluster: ClusterId::new(cluster.cast_unsigned()) }
    }
}

#[cfg(feature = "bb8")]
/// The backend of one connection. An address may lead to one server today and to another tomorrow; a connection does
/// not change its server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) pid: i32,
    /// When it was started, in µs by the server's clock: process ids are used again.
    pub(crate) started: i64,
    pub(crate) server: Server,
}

impl From<NodeReading> for Server {
    fn from(reading: NodeReading) -> Self {
        Self { incarnation: reading.incarnation, cluster: reading.position.cluster() }
    }
}

#[cfg(feature = "bb8")]
impl Backend {
    pub(crate) async fn of(client: &Client) -> Result<Self, Error> {
        let identify = format!(
            "select pg_backend_pid(), {STARTED}, {CLUSTER}, \
             coalesce((select (extract(epoch from backend_start) * 1000000)::bigint from pg_stat_activity \
                       where pid = pg_backend_pid()), 0)"
        );
        // Prepared and closed within one round trip each; the common pooled connection asks this once in its life.
        let row = client.query_one(&identify, &[]).await?;
        Ok(Self {
            pid: row.try_get(0)?,
            started: row.try_get(3)?,
            server: Server::new(row.try_get(1)?, row.try_get(2)?),
        })
    }
}

/// How long one question over a connection may take.
pub(crate) const ASK_DEADLINE: Duration = Duration::from_secs(1);
