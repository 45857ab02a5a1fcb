//! The pass over time that keeps the clocks.

use super::{
    Options,
    clock::{Arena, Layout, Part, join},
    lost::Lost,
    owed::{Event, KeyEvents, Past},
    promises,
    stale::Newest,
    tempted::oldest_later,
    unordered::overwritten,
    witness::Finding,
};
use crate::{
    history::{History, KeyKind, NEVER, NONE, Op, Seen},
    order::{Order, Source},
    parse::{Function, Level, Outcome},
    report::Kind,
};

/// What the pass found.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) found: Vec<Finding>,
    pub(crate) temptations: u64,
    /// Reads that returned before the write was invoked that they show, and messages likewise: (cause, effect).
    pub(crate) future_reads: Vec<(u32, u32)>,
}

/// All invocations and returns by time; at the same time invocations first, so that equal times order nothing.
pub(crate) fn timeline(h: &History) -> Vec<(u64, u32)> {
    let mut events = Vec::with_capacity(2 * h.ops.len());
    for (number, op) in (0..).zip(&h.ops).filter(|(_, op)| op.f != Function::Final) {
        events.push((op.inv, number));
        if op.ret != NEVER {
            events.push((op.ret, number | RETURNED));
        }
    }
    events.sort_unstable();
    events
}

/// Marks a return in [`timeline`].
pub(crate) const RETURNED: u32 = 1 << 31;

pub(crate) fn sweep(h: &History, order: &Order, options: &Options) -> Swept {
    let mut sweep = Sweep::new(h, order, options);
    for (_, event) in timeline(h) {
        if event & RETURNED == 0 { sweep.invoke(event) } else { sweep.complete(event & !RETURNED) }
    }
    sweep.out
}

struct Sweep<'a> {
    h: &'a History,
    order: &'a Order,
    options: &'a Options,
    layout: Layout,
    arena: Arena,
    /// The clock of each session, and how many of its operations have returned.
    clocks: Vec<u32>,
    returned: Vec<u32>,
    /// The clock with which an operation was invoked, for reads until they return, for writes while they may be read.
    slots: Vec<u32>,
    own_at_invocation: Vec<u32>,
    index: Vec<u32>,
    value_uses: Vec<u32>,
    /// The joined clocks of all writes of a list.
    list_slots: Vec<u32>,
    list_uses: Vec<u32>,
    keys: Vec<KeyEvents>,
    oldest: Vec<u32>,
    newest: Newest,
    lost: Lost,
    resets: Vec<Vec<(u64, u64)>>,
    first_reset: u64,
    scratch: Vec<u32>,
    out: Swept,
}

impl<'a> Sweep<'a> {
    fn new(h: &'a History, order: &'a Order, options: &'a Options) -> Self {
        let mut resets = vec![Vec::new(); h.sessions.len()];
        let mut first_reset = NEVER;
        for op in h.ops.iter().filter(|op| op.out == Outcome::Reset && op.session != NONE) {
            resets[op.session as usize].push((op.inv, op.ret));
            first_reset = first_reset.min(op.inv);
        }
        let messages = h.ops.iter().any(|op| op.f == Function::Recv);
        let layout = Layout::new(h.sessions.len(), messages, first_reset != NEVER);
        let (list_uses, value_uses) = uses(h, order);
        Self {
            h,
            order,
            options,
            layout,
            arena: Arena::new(layout.width),
            clocks: vec![0; layout.width * h.sessions.len()],
            returned: vec![0; h.sessions.len()],
            slots: vec![NONE; h.ops.len()],
            own_at_invocation: vec![0; h.ops.len()],
            index: vec![NONE; h.ops.len()],
            value_uses,
            list_slots: vec![NONE; h.trie.len()],
            list_uses,
            keys: h.keys.iter().map(|_| KeyEvents::default()).collect(),
            oldest: oldest_later(h, order),
            newest: Newest::new(h),
            lost: Lost::new(h, order),
            resets,
            first_reset,
            scratch: vec![0; layout.width],
            out: Swept { found: Vec::new(), temptations: 0, future_reads: Vec::new() },
        }
    }

    fn clock(&mut self, session: u32) -> &mut [u32] {
        let from = session as usize * self.layout.width;
        &mut self.clocks[from..from + self.layout.width]
    }

    fn invoke(&mut self, number: u32) {
        let op = self.h.ops[number as usize];
        self.own_at_invocation[number as usize] = self.returned[op.session as usize];
        let needed = if op.is_write() {
            self.value_uses[op.target as usize] > 0
        } else {
            op.ret != NEVER || op.f == Function::Send
        };
        let from = op.session as usize * self.layout.width;
        let clock = &self.clocks[from..from + self.layout.width];
        if needed {
            self.slots[number as usize] = self.arena.keep(clock);
        }
        if !self.lost.is_empty() {
            self.lost.invoke(number, &op);
        }
        if op.is_write() && op.out != Outcome::Fail {
            self.judge_write(number, &op);
        }
    }

    fn judge_write(&mut self, number: u32, op: &Op) {
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

    fn complete(&mut self, number: u32) {
        let op = self.h.ops[number as usize];
        let session = op.session as usize;
        if !op.is_write() {
            let slot = std::mem::replace(&mut self.slots[number as usize], NONE);
            let mut clock = std::mem::take(&mut self.scratch);
            clock.copy_from_slice(self.arena.get(slot));
            if op.f == Function::Send {
                self.slots[number as usize] = slot;
            } else {
                self.arena.release(slot);
            }
            for entry in 0..op.count {
                let seen = self.h.seen[(op.target + entry) as usize];
                self.join_writers(seen, number, &op, &mut clock);
            }
            if op.f == Function::Recv && op.out != Outcome::Fail {
                self.join_message(number, &op, &mut clock);
            }
            if op.is_answered_read() {
                for entry in op.target..op.target + op.count {
                    self.judge_read(number, &op, entry, &clock);
                }
            }
            join(self.clock(op.session), &clock);
            self.scratch = clock;
        }
        if !self.lost.is_empty() {
            self.lost.complete(self.h, number, &self.resets[session], &mut self.out.found);
        }
        self.record(number, &op);
        self.returned[session] += 1;
        let (layout, returned) = (self.layout, self.returned[session]);
        layout.count(self.clock(op.session), session, returned);
        if op.out == Outcome::Reset {
            layout.tell(self.clock(op.session));
        }
    }

    /// Keeps what the operation wrote or showed for those in whose past it will be.
    fn record(&mut self, number: u32, op: &Op) {
        let index = self.returned[op.session as usize];
        self.index[number as usize] = index;
        if op.is_write() {
            let key = self.h.key_of(op);
            let version = self.order.rank[op.target as usize];
            let survives = version > 0
                && (self.order.source[key as usize] == Source::List || self.order.observed[op.target as usize]);
            let owed = op.out == Outcome::Ok || (self.options.strict && op.out == Outcome::Info && survives);
            let ordered = version > 0 || self.order.source[key as usize] == Source::Nothing;
            if owed && ordered {
                self.keys[key as usize].push(op.session, true, index, version, op.target, number);
                self.newest.push(key, true, op.ret, version, number);
            }
        } else if op.is_answered_read() {
            for seen in self.h.seen(op) {
                let version = self.order.newest_shown(self.h, *seen);
                let unordered = self.order.source[seen.key as usize] == Source::Nothing && seen.place != NONE;
                if version.is_some_and(|version| version > 0) || unordered {
                    let version = version.unwrap_or(0);
                    self.keys[seen.key as usize].push(op.session, false, index, version, seen.place, number);
                    self.newest.push(seen.key, false, op.ret, version, number);
                }
            }
        }
    }

    fn past<'c>(&self, clock: &'c [u32], number: u32, key: u32) -> Past<'c> {
        let op = &self.h.ops[number as usize];
        let causal = self.layout.part(clock, Part::Causal);
        let told = match self.order.source[key as usize] {
            Source::List => &[],
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

    fn judge_read(&mut self, number: u32, op: &Op, entry: u32, clock: &[u32]) {
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
            let lost = |value: u32| self.order.rank[value as usize] > 0 && !self.h.trie.contains(seen.place, value);
            let lacks = |event: &Event| match self.h.ops[event.op as usize].is_write() {
                true => lost(event.value),
                false => self.h.visible(Seen { key: seen.key, place: event.value }).any(lost),
            };
            if let Some((kind, event)) = events.missing_from(&past, op.level, lacks) {
                self.out.temptations += 1;
                let mut finding = Finding::new(kind, seen.key, &[event.op, number], missing(kind));
                finding.incomplete = !matches!(kind, Kind::Ryw | Kind::Mr);
                self.out.found.push(finding);
            }
            return;
        }
        let Some(version) = self.order.version(self.h, seen) else { return };
        let tempting = version.min(self.oldest[entry as usize]);
        if events.top > tempting && events.missing(&past, op.level, tempting).is_some() {
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

    fn judge_age(&mut self, number: u32, op: &Op, key: u32, version: u32) {
        if !promises(op.level, Kind::Stale) {
            return;
        }
        let bound = if op.level == Level::Strong { Some(0) } else { self.options.max_staleness };
        let Some(before) = bound.and_then(|bound| op.inv.checked_sub(bound)) else { return };
        let Some((_, newest, earlier)) = self.newest.newer(key, op.level == Level::Bounded, before, version) else {
            return;
        };
        let register = self.h.keys[key as usize].kind != KeyKind::List;
        let survived = self.order.end[key as usize].is_some_and(|end| end.is_final && end.version == newest);
        if register && self.first_reset <= op.ret && !survived {
            return;
        }
        let what = "a read is older than what was there before, or longer ago than its bound";
        self.out.found.push(Finding::new(Kind::Stale, key, &[earlier, number], what));
    }

    /// After a loss, an order that comes from the writers does not say what survived.
    fn is_unsure(&self, key: u32, op: &Op) -> bool {
        matches!(self.order.source[key as usize], Source::Derived | Source::Nothing) && self.first_reset <= op.ret
    }

    /// Whether the session was told of a loss by an answer that overlaps this operation, or is its own.
    fn is_told_meanwhile(&self, op: &Op) -> bool {
        self.resets[op.session as usize].iter().any(|(inv, ret)| *inv <= op.ret && *ret >= op.inv)
    }

    fn join_message(&mut self, number: u32, op: &Op, clock: &mut [u32]) {
        let send = self.h.sends[op.msg as usize];
        match self.slots.get(send as usize) {
            Some(slot) if *slot != NONE => self.layout.join_message(clock, self.arena.get(*slot)),
            _ => self.out.future_reads.push((send, number)),
        }
    }

    fn join_writers(&mut self, seen: Seen, number: u32, op: &Op, clock: &mut [u32]) {
        if seen.place == NONE || !op.is_answered_read() {
            return;
        }
        if self.h.keys[seen.key as usize].kind != KeyKind::List {
            self.join_writer(seen.place, number, op, clock);
            return;
        }
        let mut path = Vec::new();
        let mut node = seen.place;
        while self.list_slots[node as usize] == NONE && self.h.trie.depth(node) > 0 {
            path.push(node);
            node = self.h.trie.parent(node);
        }
        for node in path.into_iter().rev() {
            let mut joined = vec![0; self.layout.width];
            let parent = self.h.trie.parent(node);
            if self.list_slots[parent as usize] != NONE {
                joined.copy_from_slice(self.arena.get(self.list_slots[parent as usize]));
            }
            self.join_writer(self.h.trie.value(node), number, op, &mut joined);
            self.list_slots[node as usize] = self.arena.keep(&joined);
            self.use_list(parent);
        }
        if self.list_slots[seen.place as usize] != NONE {
            join(clock, self.arena.get(self.list_slots[seen.place as usize]));
            self.use_list(seen.place);
        }
    }

    fn use_list(&mut self, node: u32) {
        let uses = &mut self.list_uses[node as usize];
        *uses = uses.saturating_sub(1);
        if *uses == 0 && self.h.trie.depth(node) > 0 {
            self.arena.release(self.list_slots[node as usize]);
        }
    }

    fn join_writer(&mut self, value: u32, number: u32, op: &Op, clock: &mut [u32]) {
        let writer = self.h.values[value as usize].writer;
        let Some(write) = self.h.ops.get(writer as usize) else { return };
        if write.inv > op.ret {
            self.out.future_reads.push((writer, number));
            return;
        }
        let slot = self.slots[writer as usize];
        if slot == NONE {
            return;
        }
        join(clock, self.arena.get(slot));
        let uses = &mut self.value_uses[value as usize];
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.arena.release(slot);
            self.slots[writer as usize] = NONE;
        }
    }
}

fn missing(kind: Kind) -> &'static str {
    match kind {
        Kind::Ryw => "a read does not show an earlier write of its session",
        Kind::Mr => "a read does not show what an earlier read of its session showed",
        Kind::Mw => "a read shows a write without an earlier one of the same session",
        Kind::Wfr => "a read shows a write without what its session had read before",
        _ => "a read does not show what a message carried",
    }
}

/// How often the clock of a list and of a value's writer is going to be asked for.
fn uses(h: &History, order: &Order) -> (Vec<u32>, Vec<u32>) {
    let mut lists = vec![0_u32; h.trie.len()];
    let mut values = vec![0_u32; h.values.len()];
    for seen in
        h.ops.iter().filter(|op| op.is_answered_read()).flat_map(|op| h.seen(op)).filter(|seen| seen.place != NONE)
    {
        let uses = if h.keys[seen.key as usize].kind == KeyKind::List { &mut lists } else { &mut values };
        uses[seen.place as usize] += 1;
    }
    for node in (0..h.trie.len() as u32).rev().filter(|node| h.trie.depth(*node) > 0) {
        if lists[node as usize] > 0 {
            lists[h.trie.parent(node) as usize] += 1;
            values[h.trie.value(node) as usize] += 1;
        }
    }
    for (uses, value) in values.iter_mut().zip(&h.values) {
        *uses += u32::from(order.source[value.key as usize] == Source::Nothing);
    }
    (lists, values)
}
