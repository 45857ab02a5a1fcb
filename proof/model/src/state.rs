//! One state of the world.

use ryw_core::Marks;

use crate::{Bounds, Fault, Left, NODES, Node, Place, Role, SESSIONS, TABS, Truth, Writes};

/// Everything that there is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The cluster.
    pub truth: Truth,
    /// What the instances know of it.
    pub instances: [Instance; TABS],
    /// Clients, and what the store has of them.
    pub sessions: [Session; SESSIONS],
    /// On its way.
    pub message: Option<Message>,
    /// What may happen yet.
    pub left: Left,
    /// The first promise that was broken; nothing happens after that.
    pub fault: Option<Fault>,
}

/// What one instance knows of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    /// As last read.
    pub seen: [Node; NODES],
    /// Epochs that were ever read, by bit.
    pub known: u8,
}

/// One client, and its entry in the mark store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// What the client carries.
    pub token: Marks,
    /// What the store has.
    pub entry: Option<Marks>,
    /// Changes when the entry becomes unknown again.
    pub stamp: u8,
    /// Written by itself, and acknowledged.
    pub own: Writes,
    /// What a later request has to show: its own, what it has seen, and what came with messages.
    pub owed: Writes,
    /// Committed after its client had given up.
    pub unsure: Writes,
    /// What it was told to be lost.
    pub told: Writes,
    /// It was told, and has not acknowledged that.
    pub mourns: bool,
    /// A write that nobody waits for.
    pub adrift: Option<Adrift>,
    /// Its tabs.
    pub tabs: [Tab; TABS],
}

/// A write that may commit yet, though its client has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Adrift {
    /// Where it was sent to.
    pub node: u8,
    /// To which run of that server.
    pub run: u8,
    /// It has committed, and that is not known yet.
    pub committed: bool,
}

/// A request on its way through the stages, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tab {
    /// No request.
    #[default]
    Idle,
    /// Its marks are unknown, or a loss is acknowledged: the primary is to be sampled.
    Asking(Ask),
    /// The sample is there, the store has not been told yet.
    Sampled(Ask, Place),
    /// To be decided.
    Ready {
        /// The request.
        ask: Ask,
        /// It has waited.
        waited: bool,
        /// It may wait.
        may_wait: bool,
    },
    /// For a replica.
    Waiting(Ask),
    /// A node was chosen, and not asked yet.
    Routed(Ask, Serving),
    /// The node has read.
    Served(Ask, Serving, Writes),
    /// The node has written; not acknowledged yet.
    Written(Ask, Serving, u8),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Whether it writes.
    pub writes: bool,
    /// Whether it acknowledges a loss.
    pub acknowledges: bool,
    /// What it has to show: owed when it was sent.
    pub must: Writes,
    /// Without an answer, and committed when it was sent.
    pub unsure: Writes,
    /// What came with it.
    pub carried: Marks,
    /// What it must see, as far as the middleware knows.
    pub required: Marks,
    /// The store's, when it was asked.
    pub stamp: u8,
}

/// Who serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serving {
    /// The node.
    pub node: u8,
    /// The run of its server that was read.
    pub run: u8,
    /// Chosen as the primary.
    pub as_primary: bool,
    /// The epoch that was current then.
    pub since: u8,
    /// Why this one.
    pub why: Why,
    /// Whether the level is achieved, as the answer says.
    pub achieved: bool,
    /// Where the node was before it was asked.
    pub before: Place,
}

/// Why a request is served where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// A loss is told.
    Lost,
    /// A replica was waited for.
    Waited,
    /// No replica is fresh enough, so the primary serves.
    FellBack,
    /// Anything else.
    Other,
}

/// What one session sends to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// To whom.
    pub to: u8,
    /// The sender's token.
    pub marks: Marks,
    /// What its receiver has to see.
    pub owed: Writes,
}

impl State {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let truth = Truth::new(bounds);
        let seen = Instance { seen: truth.nodes, known: 1 << 1 };
        let session = Session { entry: Some(Marks::none()), ..Session::default() };
        Self {
            instances: [seen; TABS],
            truth,
            sessions: [session.clone(), session],
            message: None,
            left: bounds.left,
            fault: None,
        }
    }

    /// Who rightly is the primary, dead or alive.
    pub(crate) fn primary(&self) -> Option<usize> {
        let is_it = |node: &Node| node.role == Role::Primary && node.place.epoch == self.truth.newest();
        self.truth.nodes.iter().position(is_it)
    }

    pub(crate) fn tab(&mut self, session: u8, tab: u8) -> &mut Tab {
        &mut self.sessions[usize::from(session)].tabs[usize::from(tab)]
    }
}
