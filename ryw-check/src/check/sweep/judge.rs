//! What a write or a read with a given past may not do.

use std::collections::HashSet;

use super::Sweep;
use crate::{
    check::{
        clock::Part,
        owed::{Event, Past},
        promises,
        unordered::overwritten,
        witness::Finding,
    },
    history::{KeyKind, NONE, Op, Seen},
    order::Source,
    parse::Level,
    report::Kind,
};

impl Sweep<'_> {
    pub(super) fn judge_write(&mut self, number: u32, op: &Op) {
        let version = self.order.rank[op.target as usize];
        let key = self.h.key_of(op);
        if version == 0 || self.is_unsure(key, op) {
            return;
        }
        self.scratch.copy_from_slice(&self.clocks[op.session as usize * self.layout.width..][..self.layout.width]);
        let past = self.past(&self.scratch, number, key);
        if let Some((kind, event)) = self.keys[key as usize].overtaken(&past, op.level, version) {
            let what = "a write took effect before what its session had written or seen when it was invoked";
            let mut finding = Finding::new(kind, key, &[event.op, number], what);
            finding.incomplete = true;
            self.out.found.push(finding);
        } else if op.level == Level::Strong
            && let Some((_, _, earlier)) = self.newest.newer(key, false, op.inv, version)
        {
            let what = "a write took effect before what was there when it was invoked";
            self.out.found.push(Finding::new(Kind::Stale, key, &[earlier, number], what));
        }
    }

    pub(super) fn past<'c>(&self, clock: &'c [u32], number: u32, key: u32) -> Past<'c> {
        let op = &self.h.ops[number as usize];
        let causal = self.layout.part(clock, Part::Causal);
        let told = match self.order.source[key as usize] {
            Source::List if self.order.has_final(key) => &[],
            _ if self.is_told_meanwhile(op) => causal,
            _ => self.layout.part(clock, Part::Told),
        };
        Past {
            session: op.session,
            own: self.own_at_invocation[number as usize],
            by_session: self.layout.part(clock, Part::Session),
            causal,
            told,
            survivor: self.order.end[key as usize].filter(|end| end.is_final).map_or(NONE, |end| end.version),
        }
    }

    pub(super) fn judge_read(&mut self, number: u32, op: &Op, entry: u32, clock: &[u32]) {
        let seen = self.h.seen[entry as usize];
        if self.is_unsure(seen.key, op) {
            return;
        }
        let past = self.past(clock, number, seen.key);
        let events = &self.keys[seen.key as usize];
        if self.order.source[seen.key as usize] == Source::Nothing {
            let clock_of = |writer: u32| {
                let slot = *self.slots.get(writer as usize)?;
                (slot != NONE).then(|| self.layout.part(self.arena.get(slot), Part::Causal))
            };
            let index_of = |writer: u32| self.index[writer as usize];
            if let Some((kind, cause)) = overwritten(self.h, events, &past, op.level, seen.place, clock_of, index_of) {
                let what = "a read shows a value that was overwritten in its past";
                let shown = self.h.values.get(seen.place as usize).map_or(NONE, |value| value.writer);
                let ops: Vec<u32> = [shown, cause, number].into_iter().filter(|op| *op != NONE).collect();
                self.out.found.push(Finding::new(kind, seen.key, &ops, what));
            }
            return;
        }
        if self.order.source[seen.key as usize] == Source::List && !self.order.is_main(self.h, seen.place) {
            let shown: HashSet<u32> = self.h.visible(seen).collect();
            let first_lacking = self.order.version(self.h, seen).unwrap_or(0) + 1;
            let lost = |value: u32| self.order.rank[value as usize] > 0 && !shown.contains(&value);
            let lacks = |event: &Event| match self.h.ops[event.op as usize].is_write() {
                true => lost(event.value),
                false if self.order.is_main(self.h, event.value) => event.version >= first_lacking,
                false => self.h.visible(Seen { key: seen.key, place: event.value }).any(lost),
            };
            if let Some((kind, event)) = events.missing_from(&past, op.level, lacks) {
                self.out.temptations += 1;
                let mut finding = Finding::new(kind, seen.key, &[event.op, number], missing(kind));
                finding.incomplete = !matches!(kind, Kind::Ryw | Kind::Mr);
                self.out.found.push(finding);
            } else if let Some(before) = self.must_show_before(seen.key, op)
                && let Some(earlier) = events.long_ago(self.h, before, op.level == Level::Bounded, lacks)
            {
                self.out.found.push(Finding::new(Kind::Stale, seen.key, &[earlier, number], OLD));
            }
            return;
        }
        let Some(version) = self.order.version(self.h, seen) else { return };
        let tempting = version.min(self.oldest[entry as usize]);
        if events.missing(&past, op.level, tempting).is_some() {
            self.out.temptations += 1;
            if let Some((kind, event)) = events.missing(&past, op.level, version) {
                let mut finding = Finding::new(kind, seen.key, &[event.op, number], missing(kind));
                finding.incomplete = !matches!(kind, Kind::Ryw | Kind::Mr);
                self.out.found.push(finding);
                return;
            }
        }
        self.judge_age(number, op, seen.key, version);
    }

    pub(super) fn judge_age(&mut self, number: u32, op: &Op, key: u32, version: u32) {
        let Some(before) = self.must_show_before(key, op) else { return };
        let Some((_, newest, earlier)) = self.newest.newer(key, op.level == Level::Bounded, before, version) else {
            return;
        };
        let register = self.h.keys[key as usize].kind != KeyKind::List;
        let survived = self.order.end[key as usize].is_some_and(|end| end.version == newest);
        if register && self.first_reset <= op.ret && !survived {
            return;
        }
        self.out.found.push(Finding::new(Kind::Stale, key, &[earlier, number], OLD));
    }

    /// The time before which everything has to be shown, whoever did it.
    fn must_show_before(&self, key: u32, op: &Op) -> Option<u64> {
        let nobody_knows_the_end = self.order.source[key as usize] == Source::List && !self.order.has_final(key);
        if !promises(op.level, Kind::Stale) || (nobody_knows_the_end && self.first_reset <= op.ret) {
            return None;
        }
        let bound = if op.level == Level::Strong { Some(0) } else { self.options.max_staleness };
        op.inv.checked_sub(bound?)
    }

    /// Without a version order, nothing says what survived a loss.
    pub(super) fn is_unsure(&self, key: u32, op: &Op) -> bool {
        self.order.source[key as usize] == Source::Nothing && self.first_reset <= op.ret
    }

    /// Whether the session was told of a loss by an answer that overlaps this operation, or is its own.
    pub(super) fn is_told_meanwhile(&self, op: &Op) -> bool {
        self.resets[op.session as usize].iter().any(|reset| self.h.ops[*reset as usize].overlaps(op))
    }
}

const OLD: &str = "a read is older than what was there before, or longer ago than its bound";

fn missing(kind: Kind) -> &'static str {
    match kind {
        Kind::Ryw => "a read does not show an earlier write of its session",
        Kind::Mr => "a read does not show what an earlier read of its session showed",
        Kind::Mw => "a read shows a write without an earlier one of the same session",
        Kind::Wfr => "a read shows a write without what its session had read before",
        _ => "a read does not show what a message carried",
    }
}
