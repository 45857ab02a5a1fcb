//! Which server process is at the other end of a connection, and what is known of it.

use std::time::Duration;

use parking_lot::Mutex;
use ryw_core::{ClusterId, Position};
use tokio_postgres::{Client, Error, Statement};
use tower_ryw::topology::Incarnation;

use crate::reading::{Capture, NodeReading, STARTED, parse, prepare};

/// The backend of one connection. An address may lead to one server today and to another tomorrow; a connection does
/// not change its server.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) pid: i32,
    /// When it was started, in µs by the server's clock: process ids are used again.
    pub(crate) started: i64,
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: ClusterId,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What this very server had applied when it was asked over this connection.
    position: Option<Position>,
    /// The question, once it has been asked.
    read: Option<Statement>,
}

impl Backend {
    pub(crate) async fn of(client: &Client) -> Result<Self, Error> {
        let identify = format!(
            "select pg_backend_pid(), {STARTED}, (select system_identifier from pg_control_system()), \
             coalesce((select (extract(epoch from backend_start) * 1000000)::bigint from pg_stat_activity \
                       where pid = pg_backend_pid()), 0)"
        );
        // Prepared and closed within one round trip each; the common pooled connection asks this once in its life.
        let row = client.query_one(&identify, &[]).await?;
        let (incarnation, cluster): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        Ok(Self {
            pid: row.try_get(0)?,
            started: row.try_get(3)?,
            incarnation: Incarnation(incarnation.cast_unsigned()),
            cluster: ClusterId::new(cluster.cast_unsigned()),
            seen: Mutex::default(),
        })
    }

    /// What this server is known to have applied, from an earlier question over this connection.
    pub(crate) fn position(&self) -> Option<Position> {
        self.seen.lock().position
    }

    /// Asks this very server, over this very connection. No transaction may be open on it.
    pub(crate) async fn ask(&self, client: &Client) -> Result<Option<NodeReading>, Error> {
        let prepared = self.seen.lock().read.clone();
        let read = match prepared {
            Some(read) => read,
            None => prepare(client).await?,
        };
        let reading = parse(&client.query_one(&read, &[]).await?, Capture::Auto)?;
        let mut seen = self.seen.lock();
        seen.read = Some(read);
        seen.position = reading.map(|reading| reading.position);
        Ok(reading)
    }
}

/// How long one question over a connection may take.
pub(crate) const ASK_DEADLINE: Duration = Duration::from_secs(1);
