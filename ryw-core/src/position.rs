//! Places in a primary's log.

use std::fmt;

/// Names one replicated database: what is written in one cluster is never found in another.
///
/// Postgres: the system identifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u64);

/// One reign of a primary; it grows with each failover. Postgres: the timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

/// A place in the log of one cluster, in one epoch: everything up to and including `offset` bytes of it.
///
/// Positions have no order of their own. Whether one contains another depends on where epochs forked, which only a
/// [`Lineage`](crate::Lineage) knows, so this type does not implement [`PartialOrd`].
///
/// ```
/// use ryw_core::{ClusterId, Epoch, Position};
/// let position = Position::new(ClusterId::new(1), Epoch::new(3), 0x1_6B37_4D48);
/// assert_eq!(position.offset(), 0x1_6B37_4D48);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    cluster: ClusterId,
    epoch: Epoch,
    offset: u64,
}

impl ClusterId {
    /// The cluster with this identifier.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The identifier.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Epoch {
    /// The epoch with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Position {
    /// The place `offset` of `cluster`'s log, written in `epoch`. The unit of `offset` is the database's own
    /// (Postgres: bytes of WAL); it only has to grow within an epoch.
    #[must_use]
    pub const fn new(cluster: ClusterId, epoch: Epoch, offset: u64) -> Self {
        Self { cluster, epoch, offset }
    }

    /// The cluster whose log this is a place in.
    #[must_use]
    pub const fn cluster(self) -> ClusterId {
        self.cluster
    }

    /// The epoch that wrote this place.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        self.epoch
    }

    /// How far into the log.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Everything that was ever written in `epoch`: stands for a write that was acknowledged there, at a place that
    /// could not be found out before the epoch's primary was gone.
    #[must_use]
    pub const fn end_of(cluster: ClusterId, epoch: Epoch) -> Self {
        Self::new(cluster, epoch, u64::MAX)
    }

    /// Whether this is [`end_of`](Self::end_of) an epoch, and no place that anybody has read.
    #[must_use]
    pub const fn is_end(self) -> bool {
        self.offset == u64::MAX
    }

    pub(crate) const fn branch(self) -> (ClusterId, Epoch) {
        (self.cluster, self.epoch)
    }

    pub(crate) const fn in_epoch(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({})", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{:X}", self.cluster, self.epoch, self.offset)
    }
}
