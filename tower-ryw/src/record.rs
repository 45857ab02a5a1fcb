//! Stage 6: make what the request did visible to the session's next request, before the response leaves.

use std::sync::Arc;

use ryw_core::{Mark, Marks, Position, StoreError, StoreErrorKind, SubjectKey, Update};
use tokio::{runtime::Handle, time::timeout};

use crate::{
    config::Config,
    decide::Route,
    observe::Recorded,
    topology::{Sample, Topology},
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
    },
    /// The request read from these nodes, and must not see less later.
    Read { from: Vec<Route> },
    /// Nobody knows whether it wrote.
    Unknown,
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
pub(crate) fn record_now(config: &Config, keys: &[SubjectKey], effect: Effect) -> Result<Saved, Effect> {
    let needs_position = config.topology.is_some() && !matches!(effect, Effect::Unknown);
    // Another store than the layer's own may need its time.
    if needs_position || config.local_store.is_none() {
        return Err(effect);
    }
    let (update, event, settles) = without_position(config, &effect);
    match config.store.join(keys, &update).now() {
        Ok(stored) => Ok(saved(stored, update, event, settles)),
        Err(_) => Err(effect),
    }
}

/// Finds out the position, then stores it; each with a deadline. Never fails: what could not be done is in the answer.
pub(crate) async fn record(config: Arc<Config>, keys: Vec<SubjectKey>, effect: Effect) -> Saved {
    let (update, event, settles) = match &config.topology {
        Some(topology) => with_position(&config, topology, effect).await,
        None => without_position(&config, &effect),
    };
    let stored = match timeout(config.store_deadline, config.store.join(&keys, &update)).await {
        Ok(stored) => stored,
        Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
    };
    saved(stored, update, event, settles)
}

type Finding = (Update, Recorded, bool);

fn without_position(config: &Config, effect: &Effect) -> Finding {
    match effect {
        Effect::Write { known, .. } => {
            (Update { marks: known.clone(), hold: Some(config.window) }, Recorded::Written, true)
        }
        // There is nothing to remember of a read: levels that would need it read from the primary.
        Effect::Read { .. } => (Update::default(), Recorded::Read, false),
        Effect::Unknown => (unknown(config), Recorded::UnknownOutcome, false),
    }
}

async fn with_position(config: &Config, topology: &Topology, effect: Effect) -> Finding {
    let (mut marks, samples, event) = match effect {
        Effect::Unknown => return (unknown(config), Recorded::UnknownOutcome, false),
        Effect::Write { known, shown: false } if !known.is_none() => {
            return (Update { marks: known, hold: None }, Recorded::Written, false);
        }
        Effect::Write { known, .. } => (known, vec![topology.sample_primary()], Recorded::Written),
        Effect::Read { from } => (Marks::none(), samples_of(topology, &from), Recorded::Read),
    };
    match timeout(config.sample_deadline, all(samples)).await {
        Ok(Some(positions)) => {
            positions.into_iter().for_each(|position| marks.add(Mark::At(position)));
            (Update { marks, hold: None }, event, event == Recorded::Written)
        }
        Ok(None) | Err(_) => {
            let Update { marks: unknown, hold } = unknown(config);
            marks.join(&unknown);
            (Update { marks, hold }, Recorded::WithoutPosition, false)
        }
    }
}

/// What these nodes have shown by now. Where it is not known which replica it was, or the primary was among them, what
/// the primary has is certainly not less.
fn samples_of(topology: &Topology, nodes: &[Route]) -> Vec<Sample> {
    let named = nodes.iter().map(|route| match route {
        Route::Replica { node: Some(node) } => Some(topology.sample_node(node)),
        Route::Replica { node: None } | Route::Primary => None,
    });
    named.collect::<Option<Vec<_>>>().unwrap_or_else(|| vec![topology.sample_primary()])
}

async fn all(samples: Vec<Sample>) -> Option<Vec<Position>> {
    let mut positions = Vec::with_capacity(samples.len());
    for sample in samples {
        positions.push(sample.await?);
    }
    Some(positions)
}

/// What is recorded when nobody knows whether, or where, something was written: the primary for a while, and after
/// that a position that is sampled then.
fn unknown(config: &Config) -> Update {
    let marks = if config.topology.is_some() { Marks::unknown() } else { Marks::none() };
    Update { marks, hold: Some(config.window) }
}

/// Records an unknown outcome from where nothing can be awaited: a drop. A store that needs time gets it on a task
/// of its own, which ends by the store's deadline.
pub(crate) fn record_unknown(config: &Config, keys: &[SubjectKey]) -> Saved {
    let update = unknown(config);
    let stored = match config.store.join(keys, &update).now() {
        Ok(stored) => stored,
        Err(join) => match Handle::try_current() {
            Ok(runtime) => {
                let deadline = config.store_deadline;
                drop(runtime.spawn(async move {
                    if !matches!(timeout(deadline, join).await, Ok(Ok(()))) {
                        tracing::warn!("the mark of an unknown outcome was not stored");
                    }
                }));
                Ok(())
            }
            Err(_) => Err(StoreError::new(StoreErrorKind::Unavailable)),
        },
    };
    saved(stored, update, Recorded::UnknownOutcome, false)
}

fn saved(stored: Result<(), StoreError>, update: Update, event: Recorded, settles: bool) -> Saved {
    let mut marks = update.marks;
    if update.hold.is_some() {
        marks.add(Mark::Pending);
    }
    match stored {
        Ok(()) => Saved { marks, event, settles },
        Err(error) => {
            tracing::warn!(%error, "a mark was not stored");
            Saved { marks, event: Recorded::NotStored, settles }
        }
    }
}
