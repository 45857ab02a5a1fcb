//! Stage 2: what must they be able to see? The join of what the tokens say and what the store knows.
//!
//! A store that does not answer in time, and anything it has forgotten, makes the marks *unknown*; where there are
//! positions, that is answered by sampling the primary once, after the loss was noticed: whatever was forgotten lies
//! at or before the sample. A floor from before a failover is renewed in the same way.

use ryw_core::{
    Loaded, Mark, Marks, Position, Reason, Relation, StoreError, StoreFuture, SubjectKey, Unsettled, Update,
};
use tokio::time::timeout;

use crate::{
    config::Config,
    identify::Identity,
    observe::Trouble,
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
    /// What became of tokens that can't be believed.
    pub(crate) doubt: Doubt,
    /// Why replicas would have to be fresher than for what is known alone.
    pub(crate) cause: Option<Reason>,
    /// The primary's position would have told what is required, and could not be had.
    pub(crate) unsampled: bool,
}

/// What became of tokens that can't be believed.
///
/// A user whose key was rotated out loses nothing by that, and whoever makes tokens up gets nothing that a request without one
/// would not: a replica that has what such a token says serves at once. Where none has, nobody waits, and the
/// [allowance](crate::RywLayerBuilder::unproven_reads) says how many of these reads the primary serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// There are none, or they make no difference.
    #[default]
    None,
    /// What they say is among the marks.
    Heeded,
    /// What they say is not: the session may not see all that it has written, and is told so.
    Unmet,
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
    if keys.is_empty() || terms.intent == Intent::Write && !tells_losses && acknowledges.is_none() {
        StoreFuture::ready(Loaded::default())
    } else {
        config.store.load(keys)
    }
}

/// What is required, when the store has answered and nothing is unknown; otherwise what still has to be found out.
pub(crate) fn required(
    config: &Config,
    view: Option<&View>,
    identity: &Identity,
    loaded: Result<Loaded, StoreError>,
) -> Lookup {
    let loaded = loaded.unwrap_or_else(|error| {
        if config.stats.may_log_trouble(Trouble::Unread) {
            tracing::warn!(%error, "marks are unknown: the mark store did not answer");
        }
        Loaded { marks: Marks::unknown(), incomplete: true, ..Loaded::default() }
    });
    let Loaded { marks: own, floor, mut unsettled, floored, incomplete: store_failed, .. } = loaded;
    let mut marks = own;
    if config.topology.is_none() && !store_failed && config.doubts.are_over(&unsettled, config.window.longest()) {
        // Without positions time answers: what was forgotten before the doubt was met is everywhere by now.
        drop(config.store.settle(&unsettled, None));
        marks = marks.without_unknown();
    }
    marks.join(&identity.carried.marks);
    if is_outdated(view, &floor) {
        marks.join(&Marks::unknown());
        unsettled.extend(floored);
    } else {
        marks.join(&floor);
    }
    let doubt = heed(config, view, identity, &mut marks);
    let cause = (doubt == Doubt::Heeded).then_some(Reason::UnknownMarks);
    let required = Required { marks, store_failed, doubt, cause, ..Required::default() };
    let is_open = |view: &View| {
        let (terms, marks) = (&identity.terms, &required.marks);
        needs_sample(view, terms, identity.acknowledges.is_some(), marks)
            || hides_what_was_seen(view, terms, marks)
            || view.untold(marks).is_some()
    };
    if view.is_some_and(is_open) { Lookup::Unsettled(required, unsettled.into_vec()) } else { Lookup::Done(required) }
}

/// Joins what tokens that can't be believed say, if that may be heeded.
fn heed(config: &Config, view: Option<&View>, identity: &Identity, marks: &mut Marks) -> Doubt {
    let Identity { terms, carried, .. } = identity;
    if carried.hint.is_none() {
        return Doubt::None;
    }
    if terms.intent == Intent::Write || !terms.level.follows_marks() {
        // It decides nothing, and is answered by the write's own position.
        marks.join(&Marks::unknown());
        return Doubt::None;
    }
    if marks.is_unknown() && view.is_some() {
        // The sample that answers for this contains whatever else there is.
        return Doubt::None;
    }
    let hint = plausible(view, &carried.hint);
    if marks.covers(&hint) {
        return Doubt::None;
    }
    let mut both = marks.clone();
    both.join(&hint);
    let is_known = !both.is_unknown() && !both.is_pending();
    let is_reached = |view: &View| view.replicas().any(|node| view.relation(&both, node) == Relation::Reached);
    // Where the primary may not be asked, or nobody knows which it is, such a token is no reason to refuse the read.
    let has_primary = view.is_none_or(|view| terms.ladder.primary && view.primary().is_some());
    if is_known && view.is_some_and(is_reached) || has_primary && config.unproven.take() {
        *marks = both;
        Doubt::Heeded
    } else {
        Doubt::Unmet
    }
}

/// What a token says that can't be believed: no more than what is there. Positions that the primary has not written, and those
/// of another cluster or epoch, would be signed with the answer as if they were somebody's. Without positions here there is none to
/// compare them with.
fn plausible(view: Option<&View>, hint: &Marks) -> Marks {
    let Some(view) = view else { return if hint.is_pending() { Marks::pending() } else { Marks::unknown() } };
    let mut own = view.own(hint);
    if own.positions().len() < hint.positions().len()
        && let Some(beginning) = view.beginning
    {
        own.add(Mark::At(beginning));
    }
    match view.primary() {
        Some(primary) if view.relation(&own, primary) == Relation::Reached => own,
        _ => Marks::unknown(),
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
fn is_outdated(view: Option<&View>, floor: &Marks) -> bool {
    let lineage = view.and_then(|view| view.lineage.as_ref());
    lineage.is_some_and(|lineage| floor.positions().iter().any(|position| position.epoch() < lineage.current()))
}

/// The slow way: waits for the store, then for the primary's position, each with a deadline.
pub(crate) async fn find_out(config: &Config, identity: &Identity, store: StoreFuture<Loaded>) -> Required {
    let loaded = store.await;
    let looked_up = {
        let view = config.topology.as_ref().map(|topology| topology.view());
        required(config, view.as_ref().map(|view| &***view), identity, loaded)
    };
    match looked_up {
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
    // As the client knows them: what this request finds out it has not been told.
    let before = required.marks.clone();
    if let Some(began) = view.untold(&required.marks) {
        name_epoch(config, &identity.keys, began).await;
        required.marks.add(Mark::At(began));
        required.renewed = true;
    }
    let settles = needs_sample(&view, &identity.terms, identity.acknowledges.is_some(), &required.marks);
    if !settles && !hides_what_was_seen(&view, &identity.terms, &required.marks) {
        return required;
    }
    let Ok(Some(sampled)) = timeout(config.sample_deadline, topology.sample_primary()).await else {
        required.unsampled = true;
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
    let told = identity.acknowledges.map(|known| topology.view().acknowledged(&before, known));
    if let Some(told) = told.filter(|told| !told.is_none()) {
        forget_lost(config, identity, &told, sampled).await;
        (required.acknowledged, required.renewed) = (true, true);
        required.marks = required.marks.without(&told);
    }
    required.renewed |= required.marks.is_open_in(sampled.epoch());
    if required.cause.is_none() {
        let view = topology.view();
        let known = required.marks.clone().without_unknown();
        let is_served = view.replicas().any(|node| view.relation(&known, node) == Relation::Reached);
        let cause = if required.store_failed { Reason::StoreUnavailable } else { Reason::UnknownMarks };
        required.cause = is_served.then_some(cause);
    }
    required.marks = required.marks.settled_by(sampled);
    required
}

/// The client is about to be told of a loss: from here on nobody answers it who has not heard of the failover.
pub(crate) async fn name_epoch(config: &Config, keys: &[SubjectKey], began: Position) {
    let update = Update { marks: Marks::at(began), hold: None };
    if let Err(error) = config.store.join(keys, &update).await
        && config.stats.may_log_trouble(Trouble::Unnamed)
    {
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
            rule: 0,
        };
        assert!(needs_sample(&aware.view(), &terms, false, &marks));
        assert!(unaware.view().is_outdated(&marks), "so it waits, or refuses");
        assert!(!needs_sample(&unaware.view(), &terms, false, &marks), "and its sample would settle what is not there");
        assert!(needs_sample(&unaware.view(), &terms, false, &Marks::unknown()));
    }
}
