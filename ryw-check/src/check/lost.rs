//! Acknowledged list elements that did not survive: owed until their session was told.
//!
//! What is owed travels along sessions, reads and messages as a set, which is empty but after a loss; a reset empties it, but for
//! what was written in an epoch that the reset cannot be about. So a message that was sent after a reset carries nothing of what its sender knew to be lost.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use super::{promises, witness::Finding};
use crate::{
    history::{History, KeyKind, NONE, Op},
    order::{Order, Source},
    parse::{Function, Outcome},
    report::Kind,
};

/// Lost values, with the kind of violation it is not to show them.
type Owed = Option<Rc<BTreeSet<(u32, Kind)>>>;

#[derive(Debug)]
pub(crate) struct Lost {
    lost: HashSet<u32>,
    sessions: Vec<Owed>,
    told: Vec<BTreeSet<u32>>,
    /// What was owed when an operation was invoked.
    invoked: HashMap<u32, Owed>,
}

impl Lost {
    /// `None` where nothing is lost, as in most histories.
    pub(crate) fn new(h: &History, order: &Order) -> Option<Self> {
        let is_lost = |value: u32| {
            let known = &h.values[value as usize];
            let ended = order.has_final(known.key);
            let acknowledged = h.ops.get(known.writer as usize).is_some_and(|op| op.out == Outcome::Ok);
            order.source[known.key as usize] == Source::List && ended && acknowledged && order.rank[value as usize] == 0
        };
        let lost: HashSet<u32> = (0..h.values.len() as u32).filter(|value| is_lost(*value)).collect();
        if lost.is_empty() {
            return None;
        }
        let sessions = vec![None; h.sessions.len()];
        let told = vec![BTreeSet::new(); h.sessions.len()];
        Some(Self { lost, sessions, told, invoked: HashMap::new() })
    }

    pub(crate) fn invoke(&mut self, number: u32, op: &Op) {
        let owed = self.sessions[op.session as usize].clone();
        if owed.is_some() {
            self.invoked.insert(number, owed);
        }
    }

    /// Follows a return, given each session's answers that told it of a loss. Reads that overlap one are excused, and what is
    /// learned while one arrives may be what it was about.
    pub(crate) fn complete(&mut self, h: &History, number: u32, resets: &[Vec<u32>], found: &mut Vec<Finding>) {
        let op = &h.ops[number as usize];
        let session = op.session as usize;
        let mine = || resets[session].iter().map(|reset| &h.ops[*reset as usize]);
        let mut owed = self.invoked.get(&number).cloned().flatten();
        let mut learned = BTreeSet::new();
        for seen in h.seen(op) {
            for value in h.visible(*seen) {
                let writer = h.values[value as usize].writer;
                learned.extend(self.carried(h, writer, op.ret, resets).map(|(value, kind)| (value, elsewhere(kind))));
                if self.lost.contains(&value) {
                    learned.insert((value, Kind::Mr));
                }
            }
        }
        if let Some(send) = h.sends.get(op.msg as usize).filter(|_| op.f == Function::Recv) {
            learned.extend(self.carried(h, *send, op.ret, resets).map(|(value, _)| (value, Kind::Causal)));
        }
        join(&mut owed, &learned);
        if op.is_answered_read() && !mine().any(|reset| reset.overlaps(op)) {
            self.judge(h, number, &owed, found);
        }
        if op.is_write() && op.out == Outcome::Ok && self.lost.contains(&op.target) {
            learned.insert((op.target, Kind::Ryw));
        }
        if !mine().any(|reset| (op.inv..=op.ret).contains(&reset.ret)) {
            join(&mut self.sessions[session], &learned);
        }
        if op.out == Outcome::Reset
            && let Some(all) = self.sessions[session].take()
        {
            let (later, told): (BTreeSet<_>, BTreeSet<_>) = all.iter().partition(|(value, _)| is_later(h, op, *value));
            self.told[session].extend(told.iter().map(|(value, _)| *value));
            join(&mut self.sessions[session], &later);
        }
    }

    /// What a write or a message passes on to whoever has it by `until`: what its session owed when it was invoked, but for
    /// what was told to it meanwhile. What is under way may get to its server after another tab has acknowledged the loss.
    fn carried<'a>(
        &'a self,
        h: &'a History,
        from: u32,
        until: u64,
        resets: &'a [Vec<u32>],
    ) -> impl Iterator<Item = (u32, Kind)> + 'a {
        let owed = self.invoked.get(&from).and_then(Option::as_deref);
        owed.into_iter().flatten().copied().filter(move |(value, _)| {
            let op = &h.ops[from as usize];
            let mut told = resets[op.session as usize].iter().map(|reset| &h.ops[*reset as usize]);
            !told.any(|reset| reset.overlaps(op) && reset.inv <= until && !is_later(h, reset, *value))
        })
    }

    fn judge(&self, h: &History, number: u32, owed: &Owed, found: &mut Vec<Finding>) {
        let op = &h.ops[number as usize];
        for seen in h.seen(op).iter().filter(|seen| h.keys[seen.key as usize].kind == KeyKind::List) {
            let contains = |value: u32| seen.place != NONE && h.trie.contains(seen.place, value);
            let of_key = |value: u32| h.values[value as usize].key == seen.key;
            let missing = owed
                .iter()
                .flat_map(|owed| owed.iter())
                .find(|(value, kind)| of_key(*value) && promises(op.level, *kind) && !contains(*value));
            if let Some((value, kind)) = missing {
                let what = "a read lacks a lost write that is owed until the session is told of the loss";
                let mut finding = Finding::new(*kind, seen.key, &[h.values[*value as usize].writer, number], what);
                finding.incomplete = *kind != Kind::Ryw;
                found.push(finding);
            }
            let back = self.told[op.session as usize].iter().find(|value| of_key(**value) && contains(**value));
            if let Some(value) = back.filter(|_| promises(op.level, Kind::Fork)) {
                let what = "a read shows what its session was told is lost";
                found.push(Finding::new(Kind::Fork, seen.key, &[h.values[*value as usize].writer, number], what));
            }
        }
    }
}

/// Whether the value was written in the epoch of a reset or after it, so that it was lost later, and not told yet.
fn is_later(h: &History, reset: &Op, value: u32) -> bool {
    let written = h.ops.get(h.values[value as usize].writer as usize).and_then(|write| write.epoch);
    written.zip(reset.epoch).is_some_and(|(written, told)| written >= told)
}

/// What it is to another session, once that has seen a write that followed.
fn elsewhere(kind: Kind) -> Kind {
    match kind {
        Kind::Ryw => Kind::Mw,
        Kind::Mr => Kind::Wfr,
        other => other,
    }
}

fn join(owed: &mut Owed, learned: &BTreeSet<(u32, Kind)>) {
    if !learned.is_empty() {
        Rc::make_mut(owed.get_or_insert_with(Rc::default)).extend(learned);
    }
}
