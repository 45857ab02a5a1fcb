//! Vector clocks in an arena, and when one may be forgotten.

use crate::history::NONE;

/// Which part of a clock is meant. `Session` leaves messages out; `Told` is what was in the past when a reset was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Session,
    Causal,
    Told,
}

/// The layout of clocks: parts that a history does not need take no space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) sessions: usize,
    causal: usize,
    told: usize,
    pub(crate) width: usize,
}

impl Layout {
    pub(crate) fn new(sessions: usize, messages: bool, resets: bool) -> Self {
        let causal = if messages { sessions } else { 0 };
        let told = causal + sessions;
        Self { sessions, causal, told, width: told + if resets { sessions } else { 0 } }
    }

    pub(crate) fn part(self, clock: &[u32], part: Part) -> &[u32] {
        let from = match part {
            Part::Session => 0,
            Part::Causal => self.causal,
            Part::Told => self.told,
        };
        clock.get(from..from + self.sessions).unwrap_or(&[])
    }

    /// Counts one more operation of a session in its own clock.
    pub(crate) fn count(self, clock: &mut [u32], session: usize, count: u32) {
        clock[session] = count;
        clock[self.causal + session] = count;
    }

    /// From here on, all that is in the past is known to be lost unless it survived.
    pub(crate) fn tell(self, clock: &mut [u32]) {
        for session in 0..self.sessions {
            clock[self.told + session] = clock[self.causal + session];
        }
    }

    /// Takes all of another past for known to be lost unless it survived.
    pub(crate) fn join_told(self, clock: &mut [u32], other: &[u32]) {
        join(&mut clock[self.told..], self.part(other, Part::Causal));
    }

    /// What a message carries is no part of the session order.
    pub(crate) fn join_message(self, clock: &mut [u32], other: &[u32]) {
        join(&mut clock[self.causal..], &other[self.causal..]);
    }
}

pub(crate) fn join(clock: &mut [u32], other: &[u32]) {
    for (mine, theirs) in clock.iter_mut().zip(other) {
        *mine = (*mine).max(*theirs);
    }
}

/// Clocks of equal width, reused once nobody needs them.
#[derive(Debug)]
pub(crate) struct Arena {
    width: usize,
    clocks: Vec<u32>,
    free: Vec<u32>,
}

impl Arena {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, clocks: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn keep(&mut self, clock: &[u32]) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = (self.clocks.len() / self.width.max(1)) as u32;
            self.clocks.resize(self.clocks.len() + self.width, 0);
            slot
        });
        let from = slot as usize * self.width;
        self.clocks[from..from + self.width].copy_from_slice(clock);
        slot
    }

    pub(crate) fn get(&self, slot: u32) -> &[u32] {
        let from = slot as usize * self.width;
        &self.clocks[from..from + self.width]
    }

    pub(crate) fn release(&mut self, slot: u32) {
        if slot != NONE {
            self.free.push(slot);
        }
    }

    /// How many clocks are kept.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.clocks.len() / self.width - self.free.len()
    }
}
