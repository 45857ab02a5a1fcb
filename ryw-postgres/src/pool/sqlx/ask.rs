//! What is asked over sqlx's connections. In the simple protocol: one round trip, and nothing stays prepared.

use sqlx::{Error, Executor, PgConnection, Row, postgres::PgRow};
use tokio_postgres::types::PgLsn;
use tower_ryw::topology::Incarnation;

use crate::{
    backend::Server,
    reading::{Answer, CLUSTER, Capture, NodeReading, READ, STARTED},
};

/// Which server the connection leads to, and the `application_name` that it knows the connection by.
pub(super) async fn identify(connection: &mut PgConnection) -> Result<(Server, String), Error> {
    let identify = format!("select {STARTED}, {CLUSTER}, current_setting('application_name')");
    let row = connection.fetch_one(identify.as_str()).await?;
    Ok((Server::new(row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))
}

/// What the server at the other end has applied. No transaction may be open on the connection.
pub(super) async fn ask(connection: &mut PgConnection) -> Result<Option<NodeReading>, Error> {
    let read = READ.replace("$1", "false");
    let read = format!("select reading.*, {STARTED} as started from ({read}) as reading");
    let row = connection.fetch_one(read.as_str()).await?;
    let started: i64 = row.try_get("started")?;
    let answer = Answer {
        recovering: row.try_get("recovering")?,
        cluster: row.try_get("cluster")?,
        applied: lsn(&row, "applied")?,
        inserted: lsn(&row, "inserted")?,
        timeline: row.try_get("timeline")?,
        checkpointed: row.try_get("checkpointed")?,
        asynchronous: row.try_get("asynchronous")?,
        page: row.try_get("page")?,
        segment: row.try_get("segment")?,
    };
    Ok(answer.reading(Incarnation(started.cast_unsigned()), Capture::Auto))
}

/// sqlx has no type for it; it comes as text.
fn lsn(row: &PgRow, column: &str) -> Result<Option<u64>, Error> {
    let Some(text) = row.try_get_unchecked::<Option<&str>, _>(column)? else { return Ok(None) };
    let lsn: PgLsn = text.parse().map_err(|_| Error::Protocol(format!("{column} is not a position")))?;
    Ok(Some(lsn.into()))
}
