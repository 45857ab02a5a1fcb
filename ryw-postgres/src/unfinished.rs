//! What a request has started and may still commit after the request was cut short.
//!
//! The mark of an unknown outcome is a position sampled *after* the transaction can't commit any more. A connection
//! that was dropped with its request is asked itself: what it answers, it answers after everything that was sent over it
//! before. One that had been given back earlier belongs to somebody else by now, so the server is asked whether its
//! backend has gone on to something newer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use ryw_core::ClusterId;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_postgres::Error;
use tower_ryw::topology::Incarnation;

use crate::{
    backend::{ASK_DEADLINE, Backend},
    connect::Target,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// What was sent before the request was cut short has arrived by then, unless the network holds it back.
const ARRIVAL: Duration = Duration::from_millis(500);
/// Looks at a time: they take connections of their own.
static LOOKS: Semaphore = Semaphore::const_new(4);

const HELD: u8 = 0;
const GIVEN_BACK: u8 = 1;
const QUIET: u8 = 2;
const BROKEN: u8 = 3;

/// One use of a connection to a primary.
#[derive(Debug)]
pub(crate) struct Trace {
    target: Arc<Target>,
    pid: i32,
    started: i64,
    incarnation: Incarnation,
    cluster: ClusterId,
    state: AtomicU8,
    doubtful: AtomicBool,
}

impl Trace {
    pub(crate) fn new(target: &Arc<Target>, backend: &Backend) -> Arc<Self> {
        let Backend { pid, started, incarnation, cluster, .. } = *backend;
        let (state, doubtful) = (AtomicU8::new(HELD), AtomicBool::new(false));
        Arc::new(Self { target: Arc::clone(target), pid, started, incarnation, cluster, state, doubtful })
    }

    /// Whether nobody knows what became of the request.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Relaxed)
    }

    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Relaxed);
    }

    /// The connection was given back while all was well.
    pub(crate) fn given_back(&self) {
        self.state.store(GIVEN_BACK, Relaxed);
    }

    /// The connection was asked: whether it has answered, after everything else that was sent over it.
    pub(crate) fn asked(&self, answered: bool) {
        self.state.store(if answered { QUIET } else { BROKEN }, Relaxed);
    }

    /// Completes when what was sent over the connection can't commit any more.
    pub(crate) async fn ended(self: Arc<Self>) {
        let mut since = None;
        sleep(ARRIVAL).await;
        loop {
            let over = match self.state.load(Relaxed) {
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
            from (select) as one
            left join pg_stat_activity as backend
              on backend.pid = $1 and (extract(epoch from backend.backend_start) * 1000000)::bigint = $2";
        let client = self.target.make.connect(self.target.config.clone()).await?;
        let now_there = Backend::of(&client).await?;
        if (now_there.incarnation, now_there.cluster) != (self.incarnation, self.cluster) {
            // The server was restarted or replaced: its transactions are over.
            return Ok(true);
        }
        let row = client.query_one(LOOK, &[&self.pid, &self.started]).await?;
        let (there, state): (bool, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
        let since = *since.get_or_insert(row.try_get(0)?);
        let newer = row.try_get::<_, Option<i64>>(3)?.is_some_and(|started| started > since);
        Ok(!there || idle_will_do && (newer || state.as_deref() == Some("idle")))
    }
}
