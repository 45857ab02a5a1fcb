//! Stage 2: what must they be able to see? The join of what the tokens say and what the store knows.
//!
//! A store that does not answer in time, and anything it has forgotten, makes the marks *unknown*; where there are
//! positions, that is answered by sampling the primary once, after the loss was noticed: whatever was forgotten lies
//! at or before the sample. A floor from before a failover is renewed in the same way.

use ryw_core::{Loaded, Mark, Marks, Position, StoreError, StoreFuture, SubjectKey, Unsettled, Update};
use tokio::time::timeout;

use crate::{
    config::Config,
    identify::Identity,
    policy::{Intent, Terms},
    topology::View,
};

/// What a session must be able to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Required {
    pub(crate) marks: Marks,
    /// The store did not answer, so part of the marks is unknown for that reason.
    pub(crate) store_failed: bool,
    /// What the client carries is out of date: it gets a new token.
    pub(crate) renewed: bool,
    /// Something that was lost has been acknowledged with this request.
    pub(crate) acknowledged: bool,
}

/// How far a lookup has come.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// What is required is known.
    Done(Required),
    /// The primary's position answers what the store does not know.
    Unsettled(Required, Vec<Unsettled>),
}

/// The store's answer, ready or not. A write goes to the primary whatever the marks are, so another store than the
/// layer's own is asked only when the write's order or an acknowledgement depends on them.
pub(crate) fn load(config: &Config, identity: &Identity) -> StoreFuture<Loaded> {
    let Identity { keys, terms, acknowledges, .. } = identity;
    let tells_losses = config.topology.is_some() && (config.given_store.is_none() || terms.orders_writes());
    if keys.is_empty() || terms.intent == Intent::Write && !tells_losses && !acknowledges {
        StoreFuture::ready(Loaded::default())
    } else {
        config.store.load(keys)
    }
}

/// What is required, when the store has answered and nothing is unknown; otherwise what still has to be found out.
pub(crate) fn required(config: &Config, identity: &Identity, loaded: Result<Loaded, StoreError>) -> Lookup {
    let loaded = loaded.unwrap_or_else(|error| {
        if config.stats.may_log_trouble() {
            tracing::warn!(%error, "marks are unknown: the mark store did not answer");
        }
        Loaded { marks: Marks::unknown(), incomplete: true, ..Loaded::default() }
    });
    let Loaded { marks: own, floor, mut unsettled, floored, incomplete: store_failed, .. } = loaded;
    let mut marks = identity.carried.marks.clone();
    if config.topology.is_none() && !store_failed && config.doubts.are_over(&unsettled, config.window.longest()) {
        // Without positions time answers: what was forgotten before the doubt was met is everywhere by now.
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
    let required = Required { marks, store_failed, renewed: false, acknowledged: false };
    let view = config.topology.as_ref().map(|topology| topology.view());
    let is_open = |view: &View| {
        let (terms, marks) = (&identity.terms, &required.marks);
        needs_sample(view, terms, identity.acknowledges, marks)
            || hides_what_was_seen(view, terms, marks)
            || view.untold(marks).is_some()
    };
    if view.is_some_and(|view| is_open(&view)) {
        Lookup::Unsettled(required, unsettled.into_vec())
    } else {
        Lookup::Done(required)
    }
}

/// Whether the primary's position, sampled now, would tell what is required.
pub(crate) fn needs_sample(view: &View, terms: &Terms, acknowledges: bool, marks: &Marks) -> bool {
    if acknowledges && view.lost(marks).is_some() {
        return true;
    }
    let open = view.lineage.as_ref().is_some_and(|lineage| marks.is_open_in(lineage.current()));
    // A write on its way goes to the primary anyhow, and a sample taken now could miss it.
    let unknown = (marks.is_unknown() || open) && !marks.is_pending();
    // Whoever is behind does not know who the primary is: its sample would stand for nothing.
    unknown && terms.intent == Intent::Read && terms.level.follows_marks() && !view.is_outdated(marks)
}

/// A write on its way goes to the primary, and hides what was forgotten besides: something that a standby has shown is there once
/// a sample is visible.
fn hides_what_was_seen(view: &View, terms: &Terms, marks: &Marks) -> bool {
    let reads = terms.intent == Intent::Read && terms.reads_raise_marks;
    reads && marks.is_pending() && !view.is_outdated(marks) && view.primary().is_some_and(|primary| primary.synchronous)
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
    match required(config, identity, store.await) {
        Lookup::Done(required) => required,
        Lookup::Unsettled(required, unsettled) => settle(config, identity, required, &unsettled).await,
    }
}

pub(crate) async fn settle(
    config: &Config,
    identity: &Identity,
    required: Required,
    unsettled: &[Unsettled],
) -> Required {
    let Some(topology) = &config.topology else { return required };
    let mut required = required;
    let view = topology.view();
    if let Some(began) = view.untold(&required.marks) {
        name_epoch(config, &identity.keys, began).await;
        required.marks.add(Mark::At(began));
        required.renewed = true;
    }
    let settles = needs_sample(&view, &identity.terms, identity.acknowledges, &required.marks);
    if !settles && !hides_what_was_seen(&view, &identity.terms, &required.marks) {
        return required;
    }
    let Ok(Some(sampled)) = timeout(config.sample_deadline, topology.sample_primary()).await else {
        return required;
    };
    if !settles {
        // Not for what is on its way, which may come after it.
        required.marks.add(Mark::At(sampled));
        return required;
    }
    if !unsettled.is_empty() {
        // The answer is in hand already; a store that does not take it will be asked to settle again.
        if let Err(error) = config.store.settle(unsettled, Some(sampled)).await {
            tracing::warn!(%error, "a settled mark was not stored");
        }
    }
    if identity.acknowledges {
        let told = topology.view().dead(&required.marks);
        forget_lost(config, identity, &told, sampled).await;
        required.acknowledged = !told.is_none();
        required.renewed = required.acknowledged;
        required.marks = required.marks.without(&told);
    }
    required.renewed |= required.marks.is_open_in(sampled.epoch());
    required.marks = required.marks.settled_by(sampled);
    required
}

/// The client is about to be told of a loss: from here on nobody answers it who has not heard of the failover.
pub(crate) async fn name_epoch(config: &Config, keys: &[SubjectKey], began: Position) {
    let update = Update { marks: Marks::at(began), hold: None };
    if let Err(error) = config.store.join(keys, &update).await {
        tracing::warn!(%error, "that a loss is told was not stored: who has not heard of the failover may show what is lost");
    }
}

/// The client knows what it has lost, and goes on from what the primary has now.
async fn forget_lost(config: &Config, identity: &Identity, told: &Marks, from: Position) {
    let forgotten = async {
        // In this order: what survived of the marks is in `from` before they go, wherever this is cut short.
        let update = Update { marks: Marks::at(from), hold: None };
        config.store.join(&identity.keys, &update).await?;
        config.store.acknowledge(&identity.keys, told).await
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(%error, "an acknowledged loss was not taken out of the mark store: it will be told again");
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Level};

    use super::*;
    use crate::{
        policy::{Ladder, Source},
        topology::{Reading, Role, Topology},
    };

    /// Found by the model: a write whose client gave up on the new primary was answered for by the old one, which lived on.
    #[test]
    fn whoever_has_not_heard_of_a_failover_answers_for_nothing_after_it() {
        let at = |epoch, offset| Position::new(ClusterId::new(1), Epoch::new(epoch), offset);
        let (aware, unaware) = (Topology::new(), Topology::new());
        let mut old = [&aware, &unaware].map(|topology| topology.add("p"));
        old.iter_mut().for_each(|watch| watch.begin().report(Reading::new(Role::Primary, at(1, 10))));
        assert_eq!(aware.view().unknown(), Marks::unknown(), "there is nothing to name");
        let mut new = aware.add("r1");
        new.begin().report(Reading::new(Role::Primary, at(2, 9)).fork(Epoch::new(2), Epoch::new(1), 8));

        let marks = aware.view().unknown();
        assert!(marks.is_unknown() && marks.positions() == [at(2, 8)]);
        assert!(aware.view().continues(&marks), "where the epoch began: nobody has to wait for that");
        let terms = Terms {
            intent: Intent::Read,
            level: Level::ReadYourWrites,
            bound: None,
            reads_raise_marks: false,
            ladder: Ladder::new(),
            strict_writes: false,
            source: Source::Manual,
        };
        assert!(needs_sample(&aware.view(), &terms, false, &marks));
        assert!(unaware.view().is_outdated(&marks), "so it waits, or refuses");
        assert!(!needs_sample(&unaware.view(), &terms, false, &marks), "and its sample would settle what is not there");
        assert!(needs_sample(&unaware.view(), &terms, false, &Marks::unknown()));
    }
}
