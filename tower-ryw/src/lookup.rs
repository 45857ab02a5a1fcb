//! Stage 2: what must they be able to see? The join of what the tokens say and what the store knows.
//!
//! A store that does not answer in time, and anything it has forgotten, makes the marks *unknown*; where there are
//! positions, that is answered by sampling the primary once, after the loss was noticed: whatever was forgotten lies
//! at or before the sample. A floor from before a failover is renewed in the same way.

use ryw_core::{Loaded, Mark, Marks, StoreError, StoreErrorKind, StoreFuture, Unsettled};
use tokio::time::timeout;

use crate::{config::Config, identify::Identity, policy::Intent};

/// What a session must be able to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Required {
    pub(crate) marks: Marks,
    /// The store did not answer, so part of the marks is unknown for that reason.
    pub(crate) store_failed: bool,
}

/// How far a lookup has come.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// What is required is known.
    Done(Required),
    /// The primary's position answers what the store does not know.
    Unsettled(Required, Vec<Unsettled>),
}

/// The store's answer, ready or not. A write goes to the primary whatever the marks are, so it does not ask.
pub(crate) fn load(config: &Config, identity: &Identity) -> StoreFuture<Loaded> {
    if identity.keys.is_empty() || identity.terms.intent == Intent::Write {
        StoreFuture::ready(Loaded::default())
    } else {
        config.store.load(&identity.keys)
    }
}

/// What is required, when the store has answered and nothing is unknown; otherwise what still has to be found out.
pub(crate) fn required(config: &Config, identity: &Identity, loaded: Result<Loaded, StoreError>) -> Lookup {
    let store_failed = loaded.is_err();
    let Loaded { marks: own, floor, mut unsettled, floored } = loaded.unwrap_or_else(|error| {
        tracing::warn!(%error, "marks are unknown: the mark store did not answer");
        Loaded { marks: Marks::unknown(), ..Loaded::default() }
    });
    let mut marks = identity.carried.marks.clone();
    if config.topology.is_none() && !unsettled.is_empty() && config.clock.age() > config.window {
        // Without positions time answers: what was forgotten before this layer was built is everywhere by now.
        drop(config.store.settle(&unsettled, None));
        marks.join(&own.without_unknown());
    } else {
        marks.join(&own);
    }
    if is_outdated(config, &floor) {
        marks.join(&Marks::unknown());
        unsettled.extend(floored);
    } else {
        marks.join(&floor);
    }
    let required = Required { marks, store_failed };
    let terms = identity.terms;
    // A write on its way goes to the primary anyhow, and a sample taken now could miss it.
    let settle = required.marks.is_unknown() && !required.marks.is_pending() && config.topology.is_some();
    if settle && terms.intent == Intent::Read && terms.level.follows_marks() {
        Lookup::Unsettled(required, unsettled.into_vec())
    } else {
        Lookup::Done(required)
    }
}

/// A floor from before a failover may lie beyond the fork: nobody who is held to it has written that.
fn is_outdated(config: &Config, floor: &Marks) -> bool {
    if floor.is_none() {
        return false;
    }
    let view = config.topology.as_ref().map(|topology| topology.view());
    let lineage = view.as_ref().and_then(|view| view.lineage.as_ref());
    lineage.is_some_and(|lineage| floor.positions().iter().any(|position| position.epoch() < lineage.current()))
}

/// The slow way: waits for the store, then for the primary's position, each with a deadline.
pub(crate) async fn find_out(config: &Config, identity: &Identity, store: StoreFuture<Loaded>) -> Required {
    let loaded = match timeout(config.store_deadline, store).await {
        Ok(loaded) => loaded,
        Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
    };
    match required(config, identity, loaded) {
        Lookup::Done(required) => required,
        Lookup::Unsettled(required, unsettled) => settle(config, required, &unsettled).await,
    }
}

pub(crate) async fn settle(config: &Config, required: Required, unsettled: &[Unsettled]) -> Required {
    let Some(topology) = &config.topology else { return required };
    let Ok(Some(sampled)) = timeout(config.sample_deadline, topology.sample_primary()).await else {
        return required;
    };
    if !unsettled.is_empty() {
        // The answer is in hand already; a store that does not take it will be asked to settle again.
        let stored = timeout(config.store_deadline, config.store.settle(unsettled, Some(sampled))).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(%error, "a settled mark was not stored");
        }
    }
    let mut marks = required.marks.without_unknown();
    marks.add(Mark::At(sampled));
    Required { marks, ..required }
}
