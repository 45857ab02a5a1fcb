//! What a server says of itself.

use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::{
    error::{ConnectError, ConnectErrorKind},
    layout::{Incarnation, Millis},
};

/// The server's clock, as it was once read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) read: Millis,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// What a server says of itself.
pub(crate) struct Said {
    pub(crate) incarnation: Incarnation,
    pub(crate) evicts: bool,
    pub(crate) clock: Clock,
}

pub(crate) async fn ask(redis: &mut MultiplexedConnection) -> Result<Said, ConnectError> {
    let asked = Instant::now();
    let (info, (seconds, micros)): (String, (u64, u64)) =
        redis::pipe().cmd("INFO").cmd("TIME").query_async(redis).await?;
    let clock = Clock { read: Millis(seconds * 1000 + micros / 1000), asked, answered: Instant::now() };
    let field = |name: &str| {
        info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    };
    if field("role") != "master" {
        return Err(ConnectError::new(ConnectErrorKind::NotAMaster));
    }
    let mut version = field("redis_version").split('.').map(|part| part.parse().unwrap_or(0_u32));
    if (version.next().unwrap_or(0), version.next().unwrap_or(0)) < (6, 2) {
        return Err(ConnectError::new(ConnectErrorKind::TooOld));
    }
    let evicts = !matches!(field("maxmemory"), "" | "0") && field("maxmemory_policy") != "noeviction";
    Ok(Said { incarnation: incarnation(field("run_id"), field("master_replid")), evicts, clock })
}

/// Another run of the server has another run id; a server that was a replica in between, another replication id. Eight
/// bytes of each.
fn incarnation(run: &str, replication: &str) -> Incarnation {
    let mut bytes = [0; 16];
    for (half, id) in bytes.chunks_exact_mut(8).zip([run, replication]) {
        let id = id.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
        half.copy_from_slice(&id.to_be_bytes());
    }
    Incarnation(bytes)
}
