//! A connection, and what is known of the server at its other end.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bb8::{ManageConnection, Pool, PooledConnection, RunError};
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, FromRedisValue, Pipeline, RedisError, aio::MultiplexedConnection};
use tokio::time::Instant;

use crate::{
    address::Address,
    error::{ConnectError, ConnectErrorKind, Failure, code},
    find::Find,
    layout::{Incarnation, Millis},
    said::{Clock, Said, ask},
};

/// Between two looks at the server. A master can become a replica, and a master again, without closing its connections.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Makes connections for bb8.
#[derive(Debug)]
pub(crate) struct Manager {
    find: Arc<Find>,
    config: AsyncConnectionConfig,
    /// How long what a look has said is believed.
    belief: Duration,
    /// The run of the server that was met last, and when it was met first.
    met: Mutex<Option<(Incarnation, Instant)>>,
    /// An eviction policy has been told of.
    warned: AtomicBool,
}

/// A connection that many requests use at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    redis: MultiplexedConnection,
    /// Redirected by a server that is about to hand the slot over.
    asking: bool,
    server: Arc<Server>,
}

/// The server at the other end of one connection.
#[derive(Debug)]
struct Server {
    find: Arc<Find>,
    address: Option<Address>,
    incarnation: Incarnation,
    /// When this process met it first, if others may have believed in another master then.
    new_since: Option<Instant>,
    belief: Duration,
    evicts: bool,
    clock: Mutex<Clock>,
    /// Somebody looks at it.
    looking: AtomicBool,
    broken: AtomicBool,
}

/// A connection to share with others.
pub(crate) async fn connection(pool: &Pool<Manager>) -> Result<Connection, Failure> {
    let connection = Connection::clone(&*pool.get().await.map_err(failure)?);
    connection.look_now_and_then().await?;
    Ok(connection)
}

/// A connection that nobody else has meanwhile.
pub(crate) async fn own_connection(pool: &Pool<Manager>) -> Result<PooledConnection<'static, Manager>, Failure> {
    let connection = pool.get_owned().await.map_err(failure)?;
    connection.look_now_and_then().await?;
    Ok(connection)
}

fn failure(error: RunError<ConnectError>) -> Failure {
    match error {
        RunError::User(error) => Failure::Connect(Arc::new(error)),
        RunError::TimedOut => Failure::Busy,
    }
}

impl Manager {
    /// Answers may take `patience`. All managers of a store have the same belief.
    pub(crate) fn new(find: Arc<Find>, deadline: Duration, patience: Duration, belief: Duration) -> Self {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(patience));
        Self { find, config, belief, met: Mutex::new(None), warned: AtomicBool::new(false) }
    }

    /// When this process has met that run first, where that matters.
    fn meet(&self, incarnation: Incarnation) -> Option<Instant> {
        let mut met = self.met.lock();
        let since = match *met {
            Some((known, since)) if known == incarnation => since,
            _ => met.insert((incarnation, Instant::now())).1,
        };
        matches!(*self.find, Find::Sentinel(_)).then_some(since)
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let asked = Instant::now();
        let (client, address) = self.find.client().await?;
        let mut redis = client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let Said { incarnation, evicts, clock } = ask(&mut redis).await?;
        if evicts && !self.warned.swap(true, Relaxed) {
            tracing::warn!(
                "Redis evicts keys when its memory is full (maxmemory-policy): whoever has no mark is taken to have lost it. \
                 Give marks a Redis of their own with noeviction"
            );
        }
        let server = Server {
            find: Arc::clone(&self.find),
            address,
            incarnation,
            new_since: self.meet(incarnation),
            belief: self.belief,
            evicts,
            // What the Sentinels have said is older than what the server says.
            clock: Mutex::new(Clock { asked, ..clock }),
            looking: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        };
        Ok(Connection { redis, asking: false, server: Arc::new(server) })
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

    /// Whether others may still believe in the master before this one, and write marks there.
    pub(crate) fn is_new(&self) -> bool {
        self.server.new_since.is_some_and(|since| since.elapsed() < self.server.belief)
    }

    /// A mark is nobody else's as long as others may still read from the master before this one.
    pub(crate) fn is_everybodys(&self) -> Result<(), Failure> {
        if self.is_new() { Err(Failure::NewMaster) } else { Ok(()) }
    }

    /// Whether a replica would redirect us.
    pub(crate) fn is_in_cluster(&self) -> bool {
        matches!(*self.server.find, Find::InCluster(..))
    }

    /// The same, for keys of a slot that is on its way there.
    pub(crate) fn asking(mut self) -> Self {
        self.asking = true;
        self
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

    /// Sends commands, and reads all their answers. What was answered long after the last look is not believed.
    pub(crate) async fn query<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failure> {
        let mut redis = self.redis.clone();
        let answer = if self.asking {
            let mut asking = Pipeline::new();
            for command in commands.cmd_iter() {
                asking.cmd("ASKING").ignore().add_command(command.clone());
            }
            asking.query_async(&mut redis).await
        } else {
            commands.query_async(&mut redis).await
        };
        if self.unseen() > self.server.belief {
            self.server.broken.store(true, Relaxed);
            return Err(Failure::Busy);
        }
        answer.map_err(|error| {
            self.note(&error);
            Failure::Redis(error)
        })
    }

    /// For how long nobody has looked.
    fn unseen(&self) -> Duration {
        self.server.clock.lock().asked.elapsed()
    }

    /// Nobody uses it again when the error says that it is of no use any more.
    fn note(&self, error: &RedisError) {
        let is_replica = matches!(code(error).as_deref(), Some("READONLY" | "NOREPLICAS" | "MASTERDOWN" | "UNBLOCKED"));
        if error.is_unrecoverable_error() || error.is_timeout() || is_replica {
            self.server.broken.store(true, Relaxed);
        }
    }

    /// Looks at the server again now and then, beside the requests; before them, when nobody has for long.
    async fn look_now_and_then(&self) -> Result<(), Failure> {
        let unseen = self.unseen();
        if unseen >= 2 * LOOK {
            return self.look().await.map_err(|error| Failure::Connect(Arc::new(error)));
        }
        if unseen >= LOOK && !self.server.looking.swap(true, Relaxed) {
            let connection = self.clone();
            // Ends with the connection's deadline.
            drop(tokio::spawn(async move {
                // It has said what is wrong.
                drop(connection.look().await);
                connection.server.looking.store(false, Relaxed);
            }));
        }
        Ok(())
    }

    async fn look(&self) -> Result<(), ConnectError> {
        let server = &*self.server;
        let looked = async {
            let said = ask(&mut self.redis.clone()).await?;
            server.find.check(server.address.as_ref()).await.map(|()| said)
        };
        match looked.await {
            Ok(Said { incarnation, evicts, clock }) if incarnation == server.incarnation && evicts == server.evicts => {
                *server.clock.lock() = clock;
                Ok(())
            }
            // Made anew, it says what holds now.
            Ok(_) => {
                server.broken.store(true, Relaxed);
                Err(ConnectError::new(ConnectErrorKind::Restarted))
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to Redis is given up");
                server.broken.store(true, Relaxed);
                Err(error)
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}
