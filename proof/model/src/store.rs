//! The mark store, and what clients send to each other.

use ryw_core::Marks;

use crate::{Message, Mutant, Ryw, State, Writes};

impl Ryw {
    /// What the store knows of a session. What it does not know is unknown.
    pub(crate) fn load(&self, state: &State, session: usize) -> Marks {
        let client = &state.sessions[session];
        let mut marks = match &client.entry {
            Some(entry) => entry.clone(),
            None if self.is(Mutant::MissIsFresh) => Marks::none(),
            None => Marks::unknown(),
        };
        // The process that saw its client give up goes on saying so until it is over.
        if client.adrift.is_some() {
            marks.join(&Marks::pending());
        }
        marks
    }

    /// Joins. An entry that is made anew does not know what the one before it knew.
    pub(crate) fn join(&self, state: &mut State, session: usize, marks: &Marks) {
        let client = &mut state.sessions[session];
        if marks.is_none() {
            return;
        }
        if marks.is_unknown() || marks.positions().iter().any(|position| position.is_end()) {
            client.stamp += 1;
        }
        let before = match client.entry.take() {
            _ if self.is(Mutant::LastWins) => Marks::none(),
            Some(entry) => entry,
            None if self.is(Mutant::LatePut) => Marks::none(),
            None => Marks::unknown(),
        };
        let mut joined = before;
        joined.join(marks);
        if self.is(Mutant::MergesByNumber)
            && let Some(largest) =
                joined.positions().iter().max_by_key(|position| (position.epoch(), position.offset())).copied()
        {
            let mut merged = Marks::at(largest);
            if joined.is_unknown() {
                merged.join(&Marks::unknown());
            }
            joined = merged;
        }
        client.entry = Some(joined);
    }

    /// A sample answers what was unknown, unless it has become so again.
    pub(crate) fn settle(&self, state: &mut State, session: usize, stamp: u8, sample: &Marks) {
        let client = &mut state.sessions[session];
        let Some(position) = sample.positions().first().copied() else { return };
        if client.stamp == stamp {
            client.entry = Some(client.entry.take().unwrap_or_default().settled_by(position));
        }
    }

    pub(crate) fn forget_lost(&self, state: &mut State, session: usize, told: &Marks, sample: &Marks) {
        self.join(state, session, sample);
        let client = &mut state.sessions[session];
        let Some(entry) = client.entry.take() else { return };
        client.entry = Some(if self.is(Mutant::ResetClobbers) {
            sample.clone()
        } else if self.is(Mutant::ForgetsNewer) {
            entry.clone().without(&entry)
        } else {
            entry.without(told)
        });
    }

    pub(crate) fn lose_store(&self, state: &mut State) -> Option<()> {
        for client in &mut state.sessions {
            client.entry = None;
            client.stamp += 1;
        }
        state.left.losses -= 1;
        Some(())
    }

    pub(crate) fn evict(&self, state: &mut State, session: usize) -> Option<()> {
        let client = &mut state.sessions[session];
        client.entry.as_ref()?;
        client.entry = self.is(Mutant::Expires).then(Marks::none);
        client.stamp += 1;
        state.left.evictions -= 1;
        Some(())
    }

    /// Nobody sends what is known to be lost.
    pub(crate) fn send(&self, state: &mut State, session: usize) -> Option<()> {
        let client = &state.sessions[session];
        let owed: Writes = client.owed.without(client.told);
        (!owed.is_empty()).then_some(())?;
        let marks = if self.is(Mutant::ForgetsToForward) { Marks::none() } else { client.token.clone() };
        state.message = Some(Message { to: u8::from(session == 0), marks, owed });
        state.left.messages -= 1;
        Some(())
    }

    /// A write that nobody waits for can't commit any more: from now on a sample stands for it.
    pub(crate) fn sink(&self, state: &mut State, session: usize) -> Option<()> {
        state.sessions[session].adrift.take()?;
        if !self.is(Mutant::CancelLeavesNothing) {
            self.join(state, session, &Marks::unknown());
        }
        Some(())
    }
}
