//! What subjects without an entry are held to.

use std::mem;

use ryw_core::{Mark, Marks, Position, Stamp};

use super::{
    tick::Tick,
    words::{BranchWords, Long, Word},
};

/// The join of what the shard has forgotten.
#[derive(Debug, Default)]
pub(super) struct Floor {
    pub(super) marks: Marks,
    pub(super) held_until: Tick,
    pub(super) unknown: bool,
    /// How often it has become unknown.
    unknown_count: u64,
}

/// The floor as readers see it.
#[derive(Debug, Default)]
pub(super) struct FloorWords {
    marks: AtMostOne,
    held_until: Word,
    unknown: Word,
    stamp: Long,
}

/// What answers for the time before the store was made, once that is known.
#[derive(Debug, Default)]
pub(super) struct Start {
    is_settled: Word,
    at: AtMostOne,
}

/// A position, or none, or that there are more.
#[derive(Debug, Default)]
struct AtMostOne {
    count: Word,
    branch: BranchWords,
    offset: Long,
}

/// The stamp of a floor that has not become unknown since the store was made.
pub(super) const SINCE_START: Stamp = Stamp(1);

impl Floor {
    /// Whatever an earlier process remembered is gone.
    pub(super) fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    pub(super) fn held_until(held_until: Tick) -> Self {
        Self { held_until, ..Self::default() }
    }

    /// Odd and even keep stamps of floors and entries apart.
    pub(super) const fn stamp(&self) -> Stamp {
        Stamp(self.unknown_count << 1 | 1)
    }

    pub(super) fn raise(&mut self, positions: &[Position]) {
        // The end of an epoch is no place that could be waited for: a sample stands for it.
        let (ends, places): (Vec<Position>, Vec<_>) = positions.iter().partition(|position| position.is_end());
        places.into_iter().for_each(|position| self.marks.add(Mark::At(position)));
        if self.marks.is_unknown() || !ends.is_empty() {
            // Too many branches to keep them all, or something that only a sample can stand for.
            self.marks = mem::take(&mut self.marks).without_unknown();
            self.forget();
        }
    }

    pub(super) fn forget(&mut self) {
        self.unknown = true;
        self.unknown_count += 1;
    }

    pub(super) fn settle(&mut self, stamp: Stamp, now: Tick, at: Option<Position>) {
        if let Some(at) = at {
            let outlived = |position: &&Position| position.cluster() != at.cluster() || position.epoch() >= at.epoch();
            self.marks = self.marks.positions().iter().filter(outlived).copied().map(Mark::At).collect();
        }
        // What is held may commit after the sample, which a floor from before a failover is renewed by all the same.
        self.unknown &= self.stamp() != stamp || self.held_until > now;
        if let Some(at) = at
            && !self.unknown
        {
            self.marks.add(Mark::At(at));
        }
    }
}

impl FloorWords {
    pub(super) fn set(&self, floor: &Floor) {
        self.marks.set(floor.marks.positions());
        self.held_until.set(floor.held_until.0);
        self.unknown.set(floor.unknown.into());
        self.stamp.set(floor.stamp().0);
    }

    /// `None` where it has more positions than there are words for.
    pub(super) fn marks(&self) -> Option<Marks> {
        self.marks.get()
    }

    pub(super) fn held_until(&self) -> Tick {
        self.held_until.tick()
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.unknown.get() != 0
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.stamp.get())
    }
}

impl Start {
    /// `None` while nobody has answered.
    pub(super) fn answer(&self) -> Option<Marks> {
        if self.is_settled.get() == 0 { None } else { self.at.get() }
    }

    pub(super) fn settle(&self, at: Option<Position>) {
        self.at.set(at.as_slice());
        self.is_settled.set(1);
    }
}

impl AtMostOne {
    fn set(&self, positions: &[Position]) {
        if let [position] = positions {
            self.branch.set((position.cluster(), position.epoch()));
            self.offset.set(position.offset());
        }
        self.count.set(u32::try_from(positions.len()).unwrap_or(u32::MAX));
    }

    fn get(&self) -> Option<Marks> {
        match self.count.get() {
            0 => Some(Marks::none()),
            1 => {
                let (cluster, epoch) = self.branch.get();
                Some(Marks::at(Position::new(cluster, epoch, self.offset.get())))
            }
            _ => None,
        }
    }
}
