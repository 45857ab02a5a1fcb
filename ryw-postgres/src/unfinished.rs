//! What a request has started and may still commit after the request was cut short.
//!
//! The mark of an unknown outcome is a position sampled *after* the transaction can't commit any more. A connection
//! that was dropped with its request is asked itself: what it answers, it answers after everything that was sent over it
//! before. One that had been given back earlier belongs to somebody else by now, so the server is asked whether its
//! backend has gone on to something newer. Where it is not known which backend that was, all of the pool's have to. And when
//! there is a primary in a newer epoch, all is over: what a server commits after its epoch has ended, nobody will see.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use ryw_core::Epoch;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_postgres::Error;
use tower_ryw::{Topology, topology::NodeView};

use crate::{
    backend::{ASK_DEADLINE, Server},
    connect::Target,
    gate::Admitted,
    nodes::Nodes,
};

#[cfg(feature = "bb8")]
use crate::backend::Backend;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// What was sent before the request was cut short has arrived by then, unless the network holds it back.
const ARRIVAL: Duration = Duration::from_millis(500);
/// Looks at a time: they take connections of their own.
static LOOKS: Semaphore = Semaphore::const_new(4);

const HELD: u8 = 0;
const GIVEN_BACK: u8 = 1;
const QUIET: u8 = 2;
#[cfg(feature = "bb8")]
const BROKEN: u8 = 3;

/// One use of a connection to a primary.
#[derive(Debug)]
pub(crate) struct Trace {
    target: Arc<Target>,
    topology: Topology,
    server: Server,
    /// In which the server was the primary.
    epoch: Epoch,
    by: By,
    state: AtomicU8,
    doubtful: AtomicBool,
}

/// Who at the server's end does what was sent.
#[derive(Debug)]
enum By {
    #[cfg(feature = "bb8")]
    Backend { pid: i32, started: i64 },
    /// One of those that go by this application name.
    #[cfg(feature = "sqlx")]
    Application(String),
}

#[cfg(feature = "bb8")]
impl Trace {
    pub(crate) fn of_backend(nodes: &Nodes, node: usize, admitted: Admitted, backend: &Backend) -> Arc<Self> {
        let Backend { pid, started, .. } = *backend;
        Self::new(nodes, node, admitted, By::Backend { pid, started }, HELD)
    }

    /// Whether nobody knows what became of the request.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Relaxed)
    }

    /// The connection was given back while all was well.
    pub(crate) fn given_back(&self) {
        self.state.store(GIVEN_BACK, Relaxed);
    }

    /// The connection was asked: whether it has answered, after everything else that was sent over it.
    pub(crate) fn asked(&self, answered: bool) {
        self.state.store(if answered { QUIET } else { BROKEN }, Relaxed);
    }
}

impl Trace {
    /// One use of some connection of this application: nobody says when it was given back.
    #[cfg(feature = "sqlx")]
    pub(crate) fn of_application(nodes: &Nodes, node: usize, admitted: Admitted, name: String) -> Arc<Self> {
        Self::new(nodes, node, admitted, By::Application(name), GIVEN_BACK)
    }

    fn new(nodes: &Nodes, node: usize, admitted: Admitted, by: By, state: u8) -> Arc<Self> {
        Arc::new(Self {
            target: Arc::clone(nodes.target(node)),
            topology: nodes.topology().clone(),
            server: admitted.server,
            epoch: admitted.epoch(),
            by,
            state: AtomicU8::new(state),
            doubtful: AtomicBool::new(false),
        })
    }

    /// Nobody knows what became of the request. Completes when what was sent over the connection can't commit any more.
    pub(crate) fn ended(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        self.doubtful.store(true, Relaxed);
        // Counted from now on, and not from when it is polled: a request may have used many connections.
        self.ended_after(Instant::now() + ARRIVAL)
    }

    async fn ended_after(self: Arc<Self>, arrival: Instant) {
        let mut since = None;
        sleep_until(arrival).await;
        loop {
            let over = match self.state.load(Relaxed) {
                _ if self.is_outlived() => true,
                QUIET => true,
                HELD => false,
                state => self.look(&mut since, state == GIVEN_BACK).await,
            };
            if over {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether there is a primary in a newer epoch: nothing that is committed from then on survives, and what was
    /// committed before is contained in a sample of the new primary, or is lost.
    fn is_outlived(&self) -> bool {
        let newest = self.topology.view().primary().and_then(NodeView::applied);
        newest.is_some_and(|position| position.epoch() > self.epoch)
    }

    async fn look(&self, since: &mut Option<i64>, idle_will_do: bool) -> bool {
        // The semaphore is never closed.
        let Ok(_permit) = LOOKS.acquire().await else { return false };
        match timeout(ASK_DEADLINE, self.is_over(since, idle_will_do)).await {
            Ok(Ok(over)) => over,
            Ok(Err(error)) => {
                tracing::debug!(node = %self.target.name, %error, "can't look whether a write has ended");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether the backend is gone, has gone on to a newer transaction, or (where that will do) does nothing.
    async fn is_over(&self, since: &mut Option<i64>, idle_will_do: bool) -> Result<bool, Error> {
        const LOOK: &str = "
            select (extract(epoch from clock_timestamp()) * 1000000)::bigint, backend.pid is not null, backend.state,
                   (extract(epoch from backend.xact_start) * 1000000)::bigint
            from (select) as one left join pg_stat_activity as backend on backend.pid <> pg_backend_pid()";
        let client = self.target.make.connect(self.target.config.clone()).await?;
        // The server was restarted or replaced: its transactions are over.
        if Server::of(&client).await? != self.server {
            return Ok(true);
        }
        let rows = match &self.by {
            #[cfg(feature = "bb8")]
            By::Backend { pid, started } => {
                let this = "backend.pid = $1 and (extract(epoch from backend.backend_start) * 1000000)::bigint = $2";
                client.query(&format!("{LOOK} and {this}"), &[pid, started]).await?
            }
            #[cfg(feature = "sqlx")]
            By::Application(name) => {
                client.query(&format!("{LOOK} and backend.application_name = $1"), &[name]).await?
            }
        };
        for row in rows {
            let (there, state): (bool, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
            let since = *since.get_or_insert(row.try_get(0)?);
            let newer = row.try_get::<_, Option<i64>>(3)?.is_some_and(|started| started > since);
            if there && !(idle_will_do && (newer || state.as_deref() == Some("idle"))) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
