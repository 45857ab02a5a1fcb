//! Where the primary was at which time, by the clock of this process alone: for bounded staleness.

use std::{collections::VecDeque, time::Duration};

use ryw_core::{Lineage, Position, Relation};
use tokio::time::Instant;

/// How far it reaches back.
const LENGTH: usize = 4096;
const STEP: Duration = Duration::from_millis(5);

/// Positions of the primary, the oldest first: everything that had been acknowledged at that time is contained in that.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(Instant, Position)>);

impl History {
    /// Takes note of a reading of the primary, asked for at that time.
    pub(super) fn remember(&mut self, asked: Instant, position: Position) {
        if self.0.back().is_some_and(|(last, _)| asked.saturating_duration_since(*last) < STEP) {
            return;
        }
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back((asked, position));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A time until which everything that was acknowledged is contained in `position`.
    pub(super) fn fresh_as_of(&self, lineage: &Lineage, position: Position) -> Option<Instant> {
        let shown = |written: Position| lineage.relate(written, position) == Relation::Reached;
        self.0.iter().rev().find(|(_, written)| shown(*written)).map(|(since, _)| *since)
    }

    /// When the primary was first seen at `offset` or beyond.
    pub(super) fn reached_at(&self, offset: u64) -> Option<Instant> {
        let first = self.0.partition_point(|(_, written)| written.offset() < offset);
        self.0.get(first).map(|(since, _)| *since)
    }
}
