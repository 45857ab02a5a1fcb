//! A connection, and what is known of the server at its other end.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bb8::ManageConnection;
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::time::Instant;

use crate::{
    error::{ConnectError, ConnectErrorKind, code},
    layout::{Incarnation, Millis},
};

/// Between two looks at the server. A master can become a replica, and a master again, without closing its connections.
const LOOK: Duration = Duration::from_secs(1);

/// Makes connections for bb8.
#[derive(Debug)]
pub(crate) struct Manager {
    client: Client,
    config: AsyncConnectionConfig,
    /// An eviction policy has been told of.
    warned: AtomicBool,
}

/// A connection that many requests use at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) redis: MultiplexedConnection,
    server: Arc<Server>,
}

/// The server at the other end of one connection.
#[derive(Debug)]
struct Server {
    incarnation: Incarnation,
    evicts: bool,
    clock: Mutex<Clock>,
    /// Somebody looks at it.
    looking: AtomicBool,
    broken: AtomicBool,
}

/// The server's clock, as it was once read.
#[derive(Clone, Copy, Debug)]
struct Clock {
    read: Millis,
    asked: Instant,
    answered: Instant,
}

/// What a server says of itself.
struct Said {
    incarnation: Incarnation,
    evicts: bool,
    clock: Clock,
}

impl Manager {
    pub(crate) fn new(client: Client, deadline: Duration) -> Self {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(deadline));
        Self { client, config, warned: AtomicBool::new(false) }
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut redis = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let Said { incarnation, evicts, clock } = ask(&mut redis).await?;
        if evicts && !self.warned.swap(true, Relaxed) {
            tracing::warn!(
                "Redis evicts keys when its memory is full (maxmemory-policy): whoever has no mark is taken to have lost it. \
                 Give marks a Redis of their own with noeviction"
            );
        }
        let (looking, broken) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Connection {
            redis,
            server: Arc::new(Server { incarnation, evicts, clock: Mutex::new(clock), looking, broken }),
        })
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), ConnectError> {
        connection.look().await
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.server.broken.load(Relaxed)
    }
}

impl Connection {
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.server.incarnation
    }

    /// Whether the server drops keys when its memory is full.
    pub(crate) fn evicts(&self) -> bool {
        self.server.evicts
    }

    /// The server's time now is this, or later.
    pub(crate) fn now(&self) -> Millis {
        let Clock { read, answered, .. } = *self.server.clock.lock();
        read.after(answered.elapsed())
    }

    /// The server's time now is this, or earlier.
    pub(crate) fn now_at_most(&self) -> Millis {
        let Clock { read, asked, .. } = *self.server.clock.lock();
        Millis(read.0 + 1).after(asked.elapsed())
    }

    /// Nobody uses it again when the error says that it is of no use any more.
    pub(crate) fn note(&self, error: &RedisError) {
        let is_replica = matches!(code(error).as_deref(), Some("READONLY" | "NOREPLICAS" | "MASTERDOWN" | "UNBLOCKED"));
        if error.is_unrecoverable_error() || error.is_timeout() || is_replica {
            self.server.broken.store(true, Relaxed);
        }
    }

    /// Looks at the server again now and then, beside the requests.
    pub(crate) fn look_now_and_then(&self) {
        let due = self.server.clock.lock().answered.elapsed() >= LOOK;
        if due && !self.server.looking.swap(true, Relaxed) {
            let mut connection = self.clone();
            // Ends with the connection's deadline.
            drop(tokio::spawn(async move {
                let looked = connection.look().await;
                connection.server.looking.store(false, Relaxed);
                if let Err(error) = looked {
                    tracing::warn!(%error, "a connection to Redis is given up");
                    connection.server.broken.store(true, Relaxed);
                }
            }));
        }
    }

    async fn look(&mut self) -> Result<(), ConnectError> {
        let Said { incarnation, evicts, clock } = ask(&mut self.redis).await?;
        if incarnation != self.server.incarnation || evicts != self.server.evicts {
            // Made anew, it says what holds now.
            self.server.broken.store(true, Relaxed);
        }
        *self.server.clock.lock() = clock;
        Ok(())
    }
}

async fn ask(redis: &mut MultiplexedConnection) -> Result<Said, ConnectError> {
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

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}
