//! How much may happen.

/// What there is, and how often what may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Bounds {
    /// Nodes; the first one begins as the primary.
    pub nodes: usize,
    /// Instances of the middleware, each with its own view of the nodes.
    pub instances: usize,
    /// Sessions.
    pub sessions: usize,
    /// Tabs of each.
    pub tabs: usize,
    /// Commits wait for a replica.
    pub synchronous: bool,
    /// Clients carry tokens, and join what they are given, as `ryw-client` does.
    pub tokens: bool,
    /// How often what may happen.
    pub left: Left,
}

/// How often it may happen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Reads, including those that acknowledge a loss.
    pub reads: u8,
    /// Writes.
    pub writes: u8,
    /// Promotions.
    pub failovers: u8,
    /// Nodes that begin again from an older place.
    pub rebuilds: u8,
    /// Losses of everything that the mark store has.
    pub losses: u8,
    /// Evictions of one session's entry.
    pub evictions: u8,
    /// Writes whose client gives up.
    pub cancels: u8,
    /// Messages from one session to another.
    pub messages: u8,
}

impl Bounds {
    /// Two nodes, one instance, one session with one tab, nothing left to happen.
    pub const fn new() -> Self {
        let left =
            Left { reads: 0, writes: 0, failovers: 0, rebuilds: 0, losses: 0, evictions: 0, cancels: 0, messages: 0 };
        Self { nodes: 2, instances: 1, sessions: 1, tabs: 1, synchronous: false, tokens: false, left }
    }

    /// So many reads and writes.
    pub const fn requests(mut self, reads: u8, writes: u8) -> Self {
        (self.left.reads, self.left.writes) = (reads, writes);
        self
    }

    /// So many sessions with so many tabs each.
    pub const fn clients(mut self, sessions: usize, tabs: usize) -> Self {
        (self.sessions, self.tabs) = (sessions, tabs);
        self
    }

    /// So many failovers, and rebuilds of nodes.
    pub const fn failovers(mut self, failovers: u8, rebuilds: u8) -> Self {
        (self.left.failovers, self.left.rebuilds) = (failovers, rebuilds);
        self
    }

    /// So many losses of the store, and evictions.
    pub const fn losses(mut self, losses: u8, evictions: u8) -> Self {
        (self.left.losses, self.left.evictions) = (losses, evictions);
        self
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new()
    }
}
