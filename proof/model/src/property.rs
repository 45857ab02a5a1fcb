//! What must never happen, and what must be possible.

use stateright::Property;
use tower_ryw::topology::NodeState;

use crate::{Ask, Place, Ryw, Session, State, Tab, Truth, Why, Writes};

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A read does not show a write of its own session.
    ReadYourWrites,
    /// A read does not show what its session has seen, or what came with a message.
    MonotonicReads,
    /// A write was added to a history without what its session had written or seen.
    Order,
    /// An acknowledged or seen write is gone, and nobody said so.
    SilentLoss,
    /// A node served that had not reached what was demanded of it.
    BelowDemand,
    /// A write whose client gave up had committed, and is not shown.
    UnsureWrite,
}

/// The names of what must never happen.
pub const ALWAYS: [&str; 6] = [
    "reads show what their session has written",
    "reads show what their session has seen and was sent",
    "writes follow what their session has written and seen",
    "a loss is told",
    "nobody serves below what is demanded",
    "a write without an answer is shown once it is there",
];

/// What a read has to show and does not.
pub(crate) fn missing(truth: &Truth, client: &Session, ask: &Ask, shown: Writes) -> Option<Fault> {
    let dead = truth.dead(truth.newest());
    let missing = ask.must.without(shown).without(client.told);
    if !missing.both(dead).is_empty() {
        Some(Fault::SilentLoss)
    } else if !missing.both(client.own).is_empty() {
        Some(Fault::ReadYourWrites)
    } else if !missing.is_empty() {
        Some(Fault::MonotonicReads)
    } else if !ask.unsure.without(shown).without(dead).is_empty() {
        Some(Fault::UnsureWrite)
    } else {
        None
    }
}

/// Whether a node that shows `place` has not reached one of the positions that were demanded.
pub(crate) fn below_demand(truth: &Truth, ask: &Ask, place: Place) -> Option<Fault> {
    let demanded = ask.required.positions().iter().filter(|position| !position.is_end());
    let mut places = demanded.filter_map(|position| {
        Some(Place::new(u8::try_from(position.epoch().get()).ok()?, u8::try_from(position.offset()).ok()?))
    });
    places.any(|demanded| !truth.contains(place, demanded)).then_some(Fault::BelowDemand)
}

/// All of them.
pub(crate) fn all() -> Vec<Property<Ryw>> {
    vec![
        Property::always(ALWAYS[0], |_, state: &State| state.fault != Some(Fault::ReadYourWrites)),
        Property::always(ALWAYS[1], |_, state: &State| state.fault != Some(Fault::MonotonicReads)),
        Property::always(ALWAYS[2], |_, state: &State| state.fault != Some(Fault::Order)),
        Property::always(ALWAYS[3], |_, state: &State| state.fault != Some(Fault::SilentLoss)),
        Property::always(ALWAYS[4], |_, state: &State| state.fault != Some(Fault::BelowDemand)),
        Property::always(ALWAYS[5], |_, state: &State| state.fault != Some(Fault::UnsureWrite)),
        Property::sometimes("a wait succeeds", |_, state: &State| serving(state, |why| why == Why::Waited)),
        Property::sometimes("the primary serves for lack of a replica", |_, state: &State| {
            serving(state, |why| why == Why::FellBack)
        }),
        Property::sometimes("a lost write is told", |_, state: &State| {
            state.sessions.iter().any(|client| !client.told.is_empty())
        }),
        Property::sometimes("a loss is acknowledged, and the session reads on", |_, state: &State| {
            let goes_on = |client: &Session| {
                !client.told.is_empty()
                    && !client.mourns
                    && client.tabs.iter().any(|tab| matches!(tab, Tab::Served(ask, ..) if ask.acknowledges))
            };
            state.sessions.iter().any(goes_on)
        }),
        Property::sometimes("a loss of the store is noticed", |_, state: &State| {
            let notices = |client: &Session| {
                client.entry.is_none() && client.tabs.iter().any(|tab| matches!(tab, Tab::Asking(_)))
            };
            state.sessions.iter().any(notices)
        }),
        Property::sometimes("a node is fenced", |model: &Ryw, state: &State| {
            let view = model.view(&state.truth, &state.instances[0]);
            view.nodes().iter().any(|node| node.state() == NodeState::Fenced)
        }),
    ]
}

fn serving(state: &State, wanted: impl Fn(Why) -> bool) -> bool {
    let is_it = |tab: &Tab| matches!(tab, Tab::Served(_, serving, _) if wanted(serving.why));
    state.sessions.iter().flat_map(|client| &client.tabs).any(is_it)
}
