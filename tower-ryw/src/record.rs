//! Stage 6: make what the request did visible to the session's next request, before the response leaves.

use std::sync::Arc;

use ryw_core::{Mark, Marks, StoreError, StoreErrorKind, SubjectKey, Update};
use tokio::{runtime::Handle, time::timeout};

use crate::{config::Config, decide::Route, observe::Recorded};

/// What there is to record.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// The request's writes are committed, at `known` where the handler has said so.
    Write { known: Marks },
    /// The request read from this node, and must not see less later.
    Read { from: Route },
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
    if config.topology.is_some() {
        return Err(effect);
    }
    let Effect::Write { known } = &effect else {
        // Without positions there is nothing to remember of a read: levels that would need it read from the primary.
        return Ok(Saved { marks: Marks::none(), event: Recorded::Read, settles: false });
    };
    let update = Update { marks: known.clone(), hold: Some(config.window) };
    match config.store.join(keys, &update).now() {
        Ok(stored) => Ok(saved(stored, update, Recorded::Written, true)),
        // Dropped: the join is idempotent, and is made again by whoever waits for it.
        Err(_) => Err(effect),
    }
}

/// Finds out the position, then stores it; each with a deadline. Never fails: what could not be done is in the answer.
pub(crate) async fn record(config: Arc<Config>, keys: Vec<SubjectKey>, effect: Effect) -> Saved {
    let (update, event, settles) = update_for(&config, effect).await;
    let stored = match timeout(config.store_deadline, config.store.join(&keys, &update)).await {
        Ok(stored) => stored,
        Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
    };
    saved(stored, update, event, settles)
}

async fn update_for(config: &Config, effect: Effect) -> (Update, Recorded, bool) {
    let Some(topology) = &config.topology else {
        return match effect {
            Effect::Write { known } => (Update { marks: known, hold: Some(config.window) }, Recorded::Written, true),
            Effect::Read { .. } => (Update::default(), Recorded::Read, false),
        };
    };
    let at = |marks| Update { marks, hold: None };
    let (sample, event) = match effect {
        Effect::Write { known } if !known.is_none() => return (at(known), Recorded::Written, false),
        Effect::Write { .. } => (topology.sample_primary(), Recorded::Written),
        Effect::Read { from: Route::Replica { node: Some(node) } } => (topology.sample_node(&node), Recorded::Read),
        // Where nobody knows which replica it was, what the primary has is certainly not less.
        Effect::Read { .. } => (topology.sample_primary(), Recorded::Read),
    };
    match timeout(config.sample_deadline, sample).await {
        Ok(Some(position)) => (at(Marks::at(position)), event, event == Recorded::Written),
        Ok(None) | Err(_) => (unknown(config), Recorded::WithoutPosition, false),
    }
}

/// What is recorded when nobody knows whether, or where, something was written: the primary for a while, and after
/// that a position that is sampled then.
pub(crate) fn unknown(config: &Config) -> Update {
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
