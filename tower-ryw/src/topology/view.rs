//! What is known of all nodes at one moment: an immutable picture that decisions are taken from.

use std::{fmt, sync::Arc};

use ryw_core::{Lineage, Marks, Position, Relation};
use tokio::time::Instant;

/// The name of a node. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

/// All nodes, as last read.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) lineage: Option<Lineage>,
    pub(crate) primary: Option<usize>,
    pub(crate) nodes: Vec<NodeView>,
}

/// One node, as last read.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub(crate) name: NodeName,
    pub(crate) state: NodeState,
    pub(crate) applied: Option<Position>,
    pub(crate) read_at: Option<Instant>,
    pub(crate) fresh_as_of: Option<Instant>,
}

/// What a node may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// Nothing has been read from it yet.
    Unseen,
    /// It accepts writes, in the newest epoch.
    Primary,
    /// It applies the primary's log.
    Replica,
    /// Its last reading failed.
    Down,
    /// It answers, but must not be used: it belongs to another cluster, or it still calls itself primary in an epoch
    /// that has ended.
    Fenced,
}

impl View {
    /// All nodes, in the order in which they were added.
    #[must_use]
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// The primary, when one is known and answers.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeView> {
        self.primary.map(|index| &self.nodes[index])
    }

    /// How `marks` relate to what a node has applied. A node that has not been read has applied nothing.
    #[must_use]
    pub fn relation(&self, marks: &Marks, node: &NodeView) -> Relation {
        match (&self.lineage, node.applied) {
            (Some(lineage), Some(applied)) => marks.relation_to(lineage, applied),
            _ if marks.positions().is_empty() => Relation::Reached,
            _ => Relation::NotYet,
        }
    }

    pub(crate) fn replicas(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.state == NodeState::Replica)
    }
}

impl NodeView {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// What the node may be used for.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        self.state
    }

    /// What it had applied when it was last read; on a primary, what it had written.
    #[must_use]
    pub const fn applied(&self) -> Option<Position> {
        self.applied
    }

    /// When it last answered.
    #[must_use]
    pub const fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// It shows every write that had been acknowledged by then, by the clock of this process alone.
    #[must_use]
    pub const fn fresh_as_of(&self) -> Option<Instant> {
        self.fresh_as_of
    }
}

impl NodeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
