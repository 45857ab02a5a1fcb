//! Stage 2: what must they be able to see? The join of what the tokens say and what the store knows.
//!
//! A store that does not answer in time, and anything it has forgotten, makes the marks *unknown*; where there are
//! positions, that is answered by sampling the primary once, after the loss was noticed: whatever was forgotten lies
//! at or before the sample.

use std::sync::Arc;

use ryw_core::{Loaded, Mark, Marks, StoreError, StoreErrorKind, StoreFuture};
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
    Unsettled(Required, Loaded),
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
    let loaded = loaded.unwrap_or_else(|error| {
        tracing::warn!(%error, "marks are unknown: the mark store did not answer");
        Loaded { marks: Marks::unknown(), ..Loaded::default() }
    });
    let mut marks = identity.carried.clone();
    marks.join(&loaded.marks);
    let required = Required { marks, store_failed };
    // A write on its way goes to the primary anyhow, and a sample taken now could miss it.
    let settle = required.marks.is_unknown() && !required.marks.is_pending() && config.topology.is_some();
    if settle && identity.terms.intent == Intent::Read && identity.terms.level.follows_marks() {
        Lookup::Unsettled(required, loaded)
    } else {
        Lookup::Done(required)
    }
}

/// The slow way: waits for the store, then for the primary's position, each with a deadline.
pub(crate) async fn find_out(config: Arc<Config>, identity: &Identity, store: StoreFuture<Loaded>) -> Required {
    let loaded = match timeout(config.store_deadline, store).await {
        Ok(loaded) => loaded,
        Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
    };
    match required(&config, identity, loaded) {
        Lookup::Done(required) => required,
        Lookup::Unsettled(required, loaded) => settle(&config, required, &loaded).await,
    }
}

pub(crate) async fn settle(config: &Config, required: Required, loaded: &Loaded) -> Required {
    let Some(topology) = &config.topology else { return required };
    let Ok(Some(sampled)) = timeout(config.sample_deadline, topology.sample_primary()).await else {
        return required;
    };
    if !loaded.unsettled.is_empty() {
        // The answer is in hand already; a store that does not take it will be asked to settle again.
        let stored = timeout(config.store_deadline, config.store.settle(&loaded.unsettled, sampled)).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(%error, "a settled mark was not stored");
        }
    }
    let mut marks = required.marks.without_unknown();
    marks.add(Mark::At(sampled));
    Required { marks, ..required }
}
