//! Marks, failovers and store losses as a model whose states are all visited.
//!
//! The world is small: three nodes, a mark store, up to two instances of the middleware, two sessions with two tabs. Whatever may
//! happen next is an [`Action`]; each interleaving is tried. What decides is the product itself: [`ryw_core::Marks`] joins, settles
//! and forgets, [`ryw_core::Lineage`] compares, [`tower_ryw::Topology`] says who is the primary and who is fenced,
//! [`tower_ryw::pure`] says where a request is served. Only what awaits is written once more here: the order of the steps of a
//! request. What has really been written and lost is kept besides ([`Truth`]), in other words than the product's, so that
//! the properties don't ask the code that they judge.
//!
//! A [`Mutant`] is one wrong protocol. Each has to be found.

mod action;
mod bounds;
mod cluster;
mod mutant;
mod picture;
mod property;
mod request;
mod state;
mod store;
mod truth;

use stateright::{Model, Property};

pub use action::Action;
pub use bounds::{Bounds, Left};
pub use mutant::Mutant;
pub use property::{ALWAYS, Fault};
pub use state::{Adrift, Ask, Instance, Message, Serving, Session, State, Tab, Why};
pub use truth::{Node, Place, Role, Truth, Writes};

use picture::Pictures;

/// The most nodes, sessions, tabs and instances there can be.
pub const NODES: usize = 3;
/// Sessions.
pub const SESSIONS: usize = 2;
/// Tabs of each session, which share what the client knows. Each talks to another instance, where there are two.
pub const TABS: usize = 2;

/// The protocol, or a mutant of it, within bounds.
#[derive(Debug)]
pub struct Ryw {
    bounds: Bounds,
    mutant: Option<Mutant>,
    start: &'static [Action],
    pictures: Pictures,
}

impl Ryw {
    /// The protocol.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, mutant: None, start: &[], pictures: Pictures::default() }
    }

    /// A wrong one, in a world that is large enough to find it.
    #[must_use]
    pub fn mutated(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..Self::instead_of(mutant) }
    }

    /// The protocol in the same world.
    #[must_use]
    pub fn instead_of(mutant: Mutant) -> Self {
        Self { start: mutant.start(), ..Self::new(mutant.bounds()) }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Model for Ryw {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::new(self.bounds);
        let is_possible = self.start.iter().all(|action| self.step(&mut state, *action).is_some());
        if is_possible { vec![state] } else { Vec::new() }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_none() {
            action::propose(&self.bounds, state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.step(&mut next, action)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::all()
    }
}
