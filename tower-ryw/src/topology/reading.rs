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
    /// Whether commits can wait for a standby here, and whether any did.
    pub(super) synchronous: Option<bool>,
    pub(super) forks: Vec<(Epoch, Epoch, u64)>,
}

impl Reading {
    /// A node in this role that has applied (or, as primary, written) everything up to `position`.
    #[must_use]
    pub const fn new(role: Role, position: Position) -> Self {
        Self { role, position, incarnation: Incarnation(0), synchronous: None, forks: Vec::new() }
    }

    /// Which run of the node's server this was read from. Default: always the same.
    #[must_use]
    pub const fn incarnation(mut self, run: Incarnation) -> Self {
        self.incarnation = run;
        self
    }

    /// Of a primary whose commits can wait for synchronous standbys: whether any did, *after* the position was read.
    /// What waits may be visible on a standby before it is visible here, so what is certain to be visible here is what
    /// was read while nothing waited. Default: commits wait for nobody.
    #[must_use]
    pub const fn synchronous(mut self, waiting: bool) -> Self {
        self.synchronous = Some(waiting);
        self
    }

    /// What the node knows of the past: epoch `epoch` continued the log of `parent` from `offset` on.
    #[must_use]
    pub fn fork(mut self, epoch: Epoch, parent: Epoch, offset: u64) -> Self {
        self.forks.push((epoch, parent, offset));
        self
    }
}
