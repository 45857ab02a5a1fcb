//! Stage 6: make what the request did visible to the session's next request, before the response leaves.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ryw_core::{
    ClusterId, Epoch, Mark, Marks, Position, StoreError, StoreErrorKind, SubjectKey, Update,
    seeded::{Bug, is_on},
};
use smallvec::SmallVec;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use crate::{
    config::Config,
    decide::Route,
    guarded::Guarded,
    identify::Keys,
    lookup,
    observe::{Recorded, Trouble},
    topology::{Incarnation, NodeName, Topology},
};

/// What there is to record.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// The request's writes are committed.
    Write {
        /// Where, as far as the handler has said.
        known: Marks,
        /// The request may have shown more than `known` contains, and that counts too.
        shown: bool,
        /// Who served the request.
        served: Served,
    },
    /// The request read, and must not see less later.
    Read { served: Served },
    /// Nobody knows whether it wrote.
    Unknown,
}

/// Who served a request.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The cluster and epoch that was current when the request was routed.
    pub(crate) since: Option<(ClusterId, Epoch)>,
    pub(crate) by: SmallVec<[(Route, Option<Run>); 1]>,
}

/// One run of a node's server, as the data layer has met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    node: NodeName,
    incarnation: Incarnation,
    position: Position,
}

impl Run {
    /// That run of that node's server, which had reached `position` when it began to serve.
    #[must_use]
    pub const fn new(node: NodeName, incarnation: Incarnation, position: Position) -> Self {
        Self { node, incarnation, position }
    }

    const fn place(&self) -> (ClusterId, Epoch) {
        (self.position.cluster(), self.position.epoch())
    }
}

/// What has been recorded; the marks go into the response's token.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) marks: Marks,
    pub(crate) event: Recorded,
    /// The marks also stand for whatever had been *unknown* before.
    pub(crate) settles: bool,
}

/// Records what needs no position and no waiting, or gives the effect back.
#[expect(clippy::result_large_err, reason = "it is handed on at once, and a box is what nearly no request needs")]
pub(crate) fn record_now(config: &Config, keys: &[SubjectKey], effect: Effect) -> Result<Saved, Effect> {
    // Another store than the layer's own may need its time.
    if config.given_store.is_some() {
        return Err(effect);
    }
    let Some((update, event, settles)) = at_once(config, &effect) else { return Err(effect) };
    match config.store.join(keys, &update).now() {
        Ok(stored) => Ok(saved(stored, update, event, settles)),
        Err(_) => Err(effect),
    }
}

/// Finds out the position, then stores it; each with a deadline. Never fails: what could not be done is in the answer. Of what
/// was announced, others know for sure only where that `was_held` until the service had answered, and the store itself has the
/// mark.
pub(crate) async fn record(
    config: Arc<Config>,
    keys: Keys,
    required: Marks,
    effect: Effect,
    was_held: Option<bool>,
) -> Saved {
    let (update, event, settles) = match (at_once(&config, &effect), &config.topology) {
        (Some(found), _) => found,
        (None, Some(topology)) => with_position(&config, topology, effect).await,
        (None, None) => without_position(&config, &effect),
    };
    let stored = match (&config.given_store, was_held) {
        (Some(store), Some(was_held)) => match store.join_itself(&keys, &update).await {
            Ok(()) if !was_held => Err(StoreError::new(StoreErrorKind::Timeout)),
            stored => stored,
        },
        _ => config.store.join(&keys, &update).await,
    };
    let mut all = required;
    all.join(&update.marks);
    if let Some(began) = config.topology.as_ref().and_then(|topology| topology.view().untold(&all)) {
        // The answer is going to tell of a loss.
        lookup::name_epoch(&config, &keys, began).await;
    }
    saved(stored, update, event, settles)
}

type Finding = (Update, Recorded, bool);

/// What is known without asking anybody for a position.
fn at_once(config: &Config, effect: &Effect) -> Option<Finding> {
    match effect {
        _ if config.topology.is_none() => Some(without_position(config, effect)),
        Effect::Unknown => Some(without_position(config, effect)),
        Effect::Write { .. } if is_on(Bug::Window) => Some(without_position(config, effect)),
        Effect::Write { known, shown: false, .. } if !known.is_none() => {
            Some((Update { marks: known.clone(), hold: None }, Recorded::Written, false))
        }
        Effect::Write { .. } | Effect::Read { .. } => None,
    }
}

fn without_position(config: &Config, effect: &Effect) -> Finding {
    match effect {
        Effect::Write { known, .. } => {
            (Update { marks: known.clone(), hold: Some(config.window.now()) }, Recorded::Written, true)
        }
        // There is nothing to remember of a read: levels that would need it read from the primary.
        Effect::Read { .. } => (Update::default(), Recorded::Read, false),
        Effect::Unknown => (unknown(config), Recorded::UnknownOutcome, false),
    }
}

async fn with_position(config: &Config, topology: &Topology, effect: Effect) -> Finding {
    let (mut marks, served, event) = match effect {
        Effect::Unknown => return without_position(config, &effect),
        Effect::Write { known, served, .. } => (known, served, Recorded::Written),
        Effect::Read { served } => (Marks::none(), served, Recorded::Read),
    };
    let found = timeout(config.sample_deadline, positions(topology, &served, event)).await.unwrap_or_default();
    match found {
        Some(positions) => {
            let open = positions.iter().any(|position| position.is_end());
            positions.into_iter().for_each(|position| marks.add(Mark::At(position)));
            // A hold, so that nobody takes a sample from before for what is open now.
            let hold = open.then(|| config.window.now());
            let event = if open { Recorded::WithoutPosition } else { event };
            (Update { marks, hold }, event, event == Recorded::Written)
        }
        None => {
            let Update { marks: unknown, hold } = unknown(config);
            marks.join(&unknown);
            // It is acknowledged all the same, so a failover that takes it has to be told.
            let places = served.by.iter().filter_map(|(_, run)| Some(run.as_ref()?.place()));
            places.chain(served.since).for_each(|place| marks.add(Mark::At(end(place))));
            (Update { marks, hold }, Recorded::WithoutPosition, false)
        }
    }
}

/// What those who served have committed or shown by now. `None` when it can't be found out.
///
/// A write's position is that of the very run of the very server that committed it: another primary's, sampled after
/// a failover, would claim that the write is there.
async fn positions(topology: &Topology, served: &Served, event: Recorded) -> Option<Vec<Position>> {
    let mut commits = Vec::new();
    let mut reads = Vec::new();
    let mut positions = Vec::new();
    let mut by_anybody = false;
    for (route, run) in &served.by {
        match (route, run) {
            (Route::Primary, Some(run)) if is_on(Bug::PreCommit) => positions.push(run.position),
            (Route::Replica { .. }, Some(run)) if is_on(Bug::MrBefore) => positions.push(run.position),
            (Route::Primary, Some(run)) => {
                commits.push((run.place(), topology.sample_commit(&run.node, run.incarnation)))
            }
            (Route::Replica { .. }, Some(run)) if event == Recorded::Read => {
                reads.push(topology.sample_run(&run.node, run.incarnation));
            }
            (Route::Replica { node: Some(node) }, None) if event == Recorded::Read => {
                reads.push(topology.sample_node(node));
            }
            // Where it is not known who it was, what the primary has is certainly not less.
            _ => by_anybody = true,
        }
    }
    let mut primary = by_anybody.then(|| topology.sample_primary());
    for (place, commit) in commits {
        match commit.await {
            Some(position) => positions.push(position),
            None => positions.push(end(place)),
        }
    }
    for read in reads {
        match read.await {
            Some(position) => positions.push(position),
            None => primary = Some(primary.unwrap_or_else(|| topology.sample_primary())),
        }
    }
    if let Some(primary) = primary {
        let position = primary.await?;
        positions.push(position);
        // Another epoch than the one that the request began in: it may have been served by the one that has ended.
        positions.extend(served.since.filter(|(_, epoch)| *epoch != position.epoch()).map(end));
    }
    Some(positions)
}

/// A place that contains whatever those who served have shown: see [`positions`].
pub(crate) async fn seen_by(topology: &Topology, served: &Served) -> Option<Vec<Position>> {
    positions(topology, served, Recorded::Written).await
}

/// Somewhere in this epoch: reached when a sample of the same epoch stands for it, lost when the epoch has ended.
const fn end((cluster, epoch): (ClusterId, Epoch)) -> Position {
    Position::end_of(cluster, epoch)
}

/// What is recorded when nobody knows whether, or where, something was written: the primary for a while, and after
/// that a position that is sampled then.
fn unknown(config: &Config) -> Update {
    let marks = config.topology.as_ref().map(|topology| topology.view().unknown()).unwrap_or_default();
    Update { marks, hold: Some(config.window.now()) }
}

/// Tells the store that these subjects are going to be written to: *pending* for the window, and, should nothing else be heard
/// of it, unknown after that. Whoever stops waiting leaves that behind at most.
pub(crate) async fn announce(
    store: &Guarded,
    config: &Config,
    keys: &[SubjectKey],
) -> Result<Arc<Announcement>, StoreError> {
    let (asked, update) = (Instant::now(), unknown(config));
    store.share(keys, &update).await?;
    let until = asked + update.hold.unwrap_or_default();
    Ok(Arc::new(Announcement { store: store.clone(), until: Mutex::new(until) }))
}

/// A write that the store itself was told of.
#[derive(Debug)]
pub(crate) struct Announcement {
    store: Guarded,
    /// At least until then, and without a gap.
    until: Mutex<Instant>,
}

impl Announcement {
    /// Whether everybody has known of it until now.
    pub(crate) fn is_held(&self) -> bool {
        Instant::now() <= *self.until.lock()
    }

    async fn renew(&self, keys: &[SubjectKey], update: &Update) -> Result<(), StoreError> {
        let asked = Instant::now();
        self.store.join_itself(keys, update).await?;
        let mut until = self.until.lock();
        // One that comes too late closes no gap: somebody may have settled the announcement in it.
        if Instant::now() <= *until {
            *until = asked + update.hold.unwrap_or_default();
        }
        Ok(())
    }
}

/// Records an unknown outcome from where nothing can be awaited: a drop. A store that needs time gets it on a task
/// of its own, which ends by the store's deadline.
pub(crate) fn record_unknown(config: &Config, keys: &[SubjectKey]) -> Saved {
    let update = unknown(config);
    let stored = match config.store.join(keys, &update).now() {
        Ok(stored) => stored,
        Err(join) => match Handle::try_current() {
            Ok(runtime) => {
                // Ends by the store's deadline.
                drop(runtime.spawn(async move {
                    if let Err(error) = join.await {
                        tracing::debug!(%error, "the mark of an unknown outcome was not stored");
                    }
                }));
                Ok(())
            }
            Err(_) => Err(StoreError::new(StoreErrorKind::Unavailable)),
        },
    };
    saved(stored, update, Recorded::UnknownOutcome, false)
}

/// The longest that something is waited for which may still commit.
const MAX_UNFINISHED: Duration = Duration::from_secs(60 * 60);
/// Between two renewals of its mark; each lasts for twice that at least.
const MIN_RENEWAL: Duration = Duration::from_millis(100);

/// Goes on holding the subjects of an unknown outcome until all of `ended` have ended. The task ends with them, with
/// the layer, or after an hour.
pub(crate) fn hold_until(config: &Arc<Config>, keys: Keys, ended: Vec<Ended>) {
    hold(config, keys, ended, None);
}

/// The same for a write that was announced.
pub(crate) fn hold_announced(config: &Arc<Config>, keys: Keys, ended: Ended, announcement: Arc<Announcement>) {
    hold(config, keys, vec![ended], Some(announcement));
}

fn hold(config: &Arc<Config>, keys: Keys, ended: Vec<Ended>, announcement: Option<Arc<Announcement>>) {
    let Ok(runtime) = Handle::try_current() else { return };
    if ended.is_empty() || keys.is_empty() {
        return;
    }
    let layer = Arc::downgrade(config);
    // The first mark may be shorter than the renewals are.
    let mut pause = config.window.now() / 2;
    drop(runtime.spawn(async move {
        let all = async {
            for one in ended {
                one.await;
            }
        };
        let mut all = pin!(timeout(MAX_UNFINISHED, all));
        while timeout(pause, &mut all).await.is_err() {
            let Some(config) = layer.upgrade() else { return };
            pause = (config.window.now() / 2).max(MIN_RENEWAL);
            let renewed = Update { hold: Some(pause * 2), ..unknown(&config) };
            let stored = match &announcement {
                Some(announcement) => announcement.renew(&keys, &renewed).await,
                None => config.store.join(&keys, &renewed).await,
            };
            if let Err(error) = stored
                && config.stats.may_log_trouble(Trouble::Unrenewed)
            {
                tracing::warn!(%error, "the mark of an unfinished write was not renewed");
            }
        }
    }));
}

/// Completes when something can't commit any more.
pub(crate) type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

fn saved(stored: Result<(), StoreError>, update: Update, event: Recorded, settles: bool) -> Saved {
    let mut marks = update.marks;
    if update.hold.is_some() {
        marks.add(Mark::Pending);
    }
    match stored {
        Ok(()) => Saved { marks, event, settles },
        Err(error) => {
            // That it is degraded is logged where it is counted, and not more often than is good.
            tracing::debug!(%error, "a mark was not stored");
            Saved { marks, event: Recorded::NotStored, settles }
        }
    }
}
