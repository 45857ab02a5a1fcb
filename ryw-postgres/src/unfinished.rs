//! What a request has started and may still commit after the request was cut short.
//!
//! The mark of an unknown outcome is a position sampled *after* the transaction can't commit any more. A connection
//! that was dropped with its request is asked itself: what it answers, it answers after everything that was sent over it
//! before. One that had been given back earlier belongs to somebody else by now, so the server is asked whether its
//! backend has gone on to something newer. Where it is not known which backend that was, all of the pool's have to. And when
//! there is a primary in a newer epoch, all is over: what a server commits after its epoch has ended, nobody will see.
//!
//! However many requests were cut short: one task and one connection a node, which asks for all of them at once.

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
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, Error, Row};
use tower_ryw::{Topology, topology::NodeView};

use crate::{backend::ASK_DEADLINE, connect::Target, gate::Admitted, nodes::Nodes};

#[cfg(feature = "bb8")]
use crate::backend::Backend;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// What was sent before the request was cut short has arrived by then, unless the network holds it back.
const ARRIVAL: Duration = Duration::from_millis(500);
/// Followed at a time, of one node; as many more wait for that.
const MAX_FOLLOWED: usize = 1024;

const HELD: u8 = 0;
const GIVEN_BACK: u8 = 1;
const QUIET: u8 = 2;
#[cfg(feature = "bb8")]
const BROKEN: u8 = 3;

/// One use of a connection to a primary.
#[derive(Debug)]
pub(crate) struct Trace {
    follower: mpsc::Sender<Unfinished>,
    topology: Topology,
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

/// Follows what requests have left behind on one node. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    to: mpsc::Sender<Unfinished>,
    task: JoinHandle<()>,
}

/// A use of a connection whose request was cut short. It has ended when this is dropped.
#[derive(Debug)]
struct Unfinished {
    trace: Arc<Trace>,
    arrival: Instant,
    /// By the server's clock, in µs: a transaction that was begun later is another one.
    since: Option<i64>,
    waited_for: oneshot::Sender<()>,
}

/// What one backend does, by the server's clock in µs.
#[derive(Debug)]
struct Activity {
    now: i64,
    /// Which process, and when it was started: numbers are used again.
    #[cfg(feature = "bb8")]
    pid: Option<(i32, i64)>,
    #[cfg(feature = "sqlx")]
    application: Option<String>,
    is_idle: bool,
    /// When its transaction was begun.
    begun: Option<i64>,
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
            follower: nodes.follower(node).to.clone(),
            topology: nodes.topology().clone(),
            epoch: admitted.epoch(),
            by,
            state: AtomicU8::new(state),
            doubtful: AtomicBool::new(false),
        })
    }

    /// Nobody knows what became of the request. Completes when what was sent over the connection can't commit any more,
    /// or when nobody can follow it.
    pub(crate) fn ended(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        self.doubtful.store(true, Relaxed);
        let (waited_for, ended) = oneshot::channel();
        let follower = self.follower.clone();
        let unfinished = Unfinished { trace: self, arrival: Instant::now() + ARRIVAL, since: None, waited_for };
        if let Err(TrySendError::Full(_)) = follower.try_send(unfinished) {
            tracing::warn!("too many requests were cut short: what this one has sent is not followed to its end");
        }
        async move { drop(ended.await) }
    }

    /// Whether there is a primary in a newer epoch: nothing that is committed from then on survives, and what was
    /// committed before is contained in a sample of the new primary, or is lost.
    fn is_outlived(&self) -> bool {
        let newest = self.topology.view().primary().and_then(NodeView::applied);
        newest.is_some_and(|position| position.epoch() > self.epoch)
    }
}

impl By {
    const fn pid(&self) -> Option<i32> {
        match self {
            #[cfg(feature = "bb8")]
            Self::Backend { pid, .. } => Some(*pid),
            #[cfg(feature = "sqlx")]
            Self::Application(_) => None,
        }
    }

    fn application(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "bb8")]
            Self::Backend { .. } => None,
            #[cfg(feature = "sqlx")]
            Self::Application(name) => Some(name),
        }
    }

    fn is(&self, backend: &Activity) -> bool {
        match self {
            #[cfg(feature = "bb8")]
            Self::Backend { pid, started } => backend.pid == Some((*pid, *started)),
            #[cfg(feature = "sqlx")]
            Self::Application(name) => backend.application.as_ref() == Some(name),
        }
    }
}

impl Follower {
    pub(crate) fn of(target: &Target) -> Self {
        let (to, arriving) = mpsc::channel(MAX_FOLLOWED);
        let mut target = target.clone();
        target.config.application_name("tower-ryw follower");
        Self { to, task: tokio::spawn(follow(target, arriving)) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(target: Target, mut arriving: mpsc::Receiver<Unfinished>) {
    let mut followed = Vec::new();
    while let Some(first) = arriving.recv().await {
        followed.push(first);
        // Kept as long as there is something to follow.
        let mut client = None;
        loop {
            while followed.len() < MAX_FOLLOWED
                && let Ok(another) = arriving.try_recv()
            {
                followed.push(another);
            }
            followed.retain(|one| !one.is_over());
            if followed.is_empty() {
                break;
            }
            look(&target, &mut client, &mut followed).await;
            sleep(PAUSE).await;
        }
    }
}

/// Asks the server for all of which it has to be asked.
async fn look(target: &Target, client: &mut Option<Client>, followed: &mut Vec<Unfinished>) {
    // Chosen before the question: what changes after it, the answer does not know.
    let (mut asked, others): (Vec<_>, Vec<_>) = followed.drain(..).partition(Unfinished::has_to_be_asked_for);
    *followed = others;
    if !asked.is_empty() {
        match timeout(ASK_DEADLINE, activities(target, client, &asked)).await {
            Ok(Ok(activities)) => asked.retain_mut(|one| !one.has_ended(&activities)),
            Ok(Err(error)) => {
                tracing::debug!(node = %target.name, %error, "can't look whether writes have ended");
                *client = None;
            }
            Err(_) => *client = None,
        }
    }
    followed.append(&mut asked);
}

async fn activities(
    target: &Target,
    client: &mut Option<Client>,
    asked: &[Unfinished],
) -> Result<Vec<Activity>, Error> {
    const LOOK: &str = "
        select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now, pid, state = 'idle' as is_idle,
               (extract(epoch from backend_start) * 1000000)::bigint as started, application_name as application,
               (extract(epoch from xact_start) * 1000000)::bigint as begun
        from pg_stat_activity where pid <> pg_backend_pid() and (pid = any($1) or application_name = any($2))";
    let client = match client {
        Some(client) => client,
        None => client.insert(target.make.connect(target.config.clone()).await?),
    };
    let pids: Vec<i32> = asked.iter().filter_map(|one| one.trace.by.pid()).collect();
    let applications: Vec<&str> = asked.iter().filter_map(|one| one.trace.by.application()).collect();
    client.query(LOOK, &[&pids, &applications]).await?.iter().map(Activity::of).collect()
}

impl Unfinished {
    /// Without asking the server.
    fn is_over(&self) -> bool {
        let is_quiet = self.trace.state.load(Relaxed) == QUIET;
        is_quiet || self.trace.is_outlived() || self.waited_for.is_closed()
    }

    /// What is held is asked itself when it is given back.
    fn has_to_be_asked_for(&self) -> bool {
        self.trace.state.load(Relaxed) != HELD && Instant::now() >= self.arrival
    }

    /// Whether the backend is gone, has gone on to a newer transaction, or (where that will do) does nothing. A server
    /// that was restarted or replaced has other backends.
    fn has_ended(&mut self, activities: &[Activity]) -> bool {
        let idle_will_do = self.trace.state.load(Relaxed) == GIVEN_BACK;
        activities.iter().filter(|activity| self.trace.by.is(activity)).all(|activity| {
            let since = *self.since.get_or_insert(activity.now);
            idle_will_do && (activity.is_idle || activity.begun.is_some_and(|begun| begun > since))
        })
    }
}

impl Activity {
    fn of(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            now: row.try_get("now")?,
            #[cfg(feature = "bb8")]
            pid: Some(row.try_get("pid")?).zip(row.try_get("started")?),
            #[cfg(feature = "sqlx")]
            application: row.try_get("application")?,
            is_idle: row.try_get::<_, Option<bool>>("is_idle")?.unwrap_or_default(),
            begun: row.try_get("begun")?,
        })
    }
}

#[cfg(all(test, feature = "bb8"))]
mod tests {
    use super::*;

    fn trace(follower: &mpsc::Sender<Unfinished>, state: u8) -> Arc<Trace> {
        Arc::new(Trace {
            follower: follower.clone(),
            topology: Topology::new(),
            epoch: Epoch::new(1),
            by: By::Backend { pid: 7, started: 1 },
            state: AtomicU8::new(state),
            doubtful: AtomicBool::new(false),
        })
    }

    fn busy(now: i64, begun: i64) -> Activity {
        Activity {
            now,
            pid: Some((7, 1)),
            #[cfg(feature = "sqlx")]
            application: None,
            is_idle: false,
            begun: Some(begun),
        }
    }

    #[test]
    fn it_has_ended_when_its_backend_does_something_else() {
        let (to, _) = mpsc::channel(1);
        for (state, then, expected, why) in [
            (GIVEN_BACK, vec![busy(200, 50)], false, "the same transaction"),
            (GIVEN_BACK, vec![busy(200, 101)], true, "a newer one"),
            (BROKEN, vec![busy(200, 101)], false, "nobody else can have sent it"),
            (GIVEN_BACK, vec![Activity { is_idle: true, begun: None, ..busy(200, 0) }], true, "nothing"),
            (BROKEN, vec![Activity { is_idle: true, begun: None, ..busy(200, 0) }], false, "it may still arrive"),
            (BROKEN, vec![], true, "it is gone"),
            (BROKEN, vec![Activity { pid: Some((7, 2)), ..busy(200, 50) }], true, "its number is used again"),
        ] {
            let (waited_for, _ended) = oneshot::channel();
            let (trace, arrival) = (trace(&to, state), Instant::now());
            let mut one = Unfinished { trace, arrival, since: None, waited_for };
            assert!(!one.has_ended(&[busy(100, 50)]));
            assert_eq!(one.has_ended(&then), expected, "{why}");
        }
    }

    #[tokio::test]
    async fn one_too_many_is_not_followed() {
        let (to, _arriving) = mpsc::channel(1);
        let followed = trace(&to, HELD).ended();
        let one_too_many = trace(&to, HELD).ended();
        assert!(timeout(PAUSE, one_too_many).await.is_ok());
        assert!(timeout(PAUSE, followed).await.is_err());
    }
}
