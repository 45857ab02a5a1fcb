//! What is read from a node.

use ryw_core::{Epoch, Position};

use super::Incarnation;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// Applies the primary's log.
    Replica,
}

/// What was read from a node.
#[derive(Clone, Debug)]
pub struct Reading {
    pub(super) role: Role,
    pub(super) position: Position,
    pub(super) incarnation: Incarnation,
    /// Where commits can wait for a standby: what is visible, as far as is known.
    pub(super) visible: Option<Option<Position>>,
    pub(super) forks: Vec<(Epoch, Epoch, u64)>,
}

impl Reading {
    /// A node in this role that has applied (or, as primary, written) everything up to `position`.
    #[must_use]
    pub const fn new(role: Role, position: Position) -> Self {
        Self { role, position, incarnation: Incarnation(0), visible: None, forks: Vec::new() }
    }

    /// Which run of the node's server this was read from. Default: always the same.
    #[must_use]
    pub const fn incarnation(mut self, run: Incarnation) -> Self {
        self.incarnation = run;
        self
    }

    /// Of a primary whose commits can wait for synchronous standbys: up to which position its own snapshots show
    /// everything. What waits may be visible on a standby before it is visible here. `None`: that is not known, or no more
    /// than before. Default: commits wait for nobody, and what is written is visible.
    #[must_use]
    pub const fn visible(mut self, up_to: Option<Position>) -> Self {
        self.visible = Some(up_to);
        self
    }

    /// What the node knows of the past: epoch `epoch` continued the log of `parent` from `offset` on.
    #[must_use]
    pub fn fork(mut self, epoch: Epoch, parent: Epoch, offset: u64) -> Self {
        self.forks.push((epoch, parent, offset));
        self
    }
}
