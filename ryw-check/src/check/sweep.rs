//! The pass over time that keeps the clocks.

mod joins;
mod judge;

use super::{
    Options,
    clock::{Arena, Layout, join},
    lost::Lost,
    owed::KeyEvents,
    stale::Newest,
    tempted::oldest_later,
    witness::Finding,
};
use crate::{
    history::{History, KeyKind, NEVER, NONE, Op},
    order::{Order, Source},
    parse::{Function, Outcome},
};

/// What the pass found.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) found: Vec<Finding>,
    pub(crate) temptations: u64,
    /// Reads that returned before the write was invoked that they show, and messages likewise: (cause, effect).
    pub(crate) future_reads: Vec<(u32, u32)>,
}

/// All invocations and returns by time; at the same time invocations first, so that equal times order nothing. Each is the
/// time, whether it is a return, and the operation.
pub(crate) fn timeline(h: &History) -> Vec<(u64, bool, u32)> {
    let mut events = Vec::with_capacity(2 * h.ops.len());
    for (number, op) in (0..).zip(&h.ops).filter(|(_, op)| op.f != Function::Final) {
        events.push((op.inv, false, number));
        if op.ret != NEVER {
            events.push((op.ret, true, number));
        }
    }
    events.sort_unstable();
    events
}

pub(crate) fn sweep(h: &History, order: &Order, options: &Options) -> Swept {
    let mut sweep = Sweep::new(h, order, options);
    sweep.run();
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
    lost: Option<Lost>,
    /// The answers that told each session of a loss.
    resets: Vec<Vec<u32>>,
    first_reset: u64,
    scratch: Vec<u32>,
    out: Swept,
}

impl<'a> Sweep<'a> {
    fn new(h: &'a History, order: &'a Order, options: &'a Options) -> Self {
        let mut resets = vec![Vec::new(); h.sessions.len()];
        let mut first_reset = NEVER;
        for (number, op) in (0..).zip(&h.ops).filter(|(_, op)| op.out == Outcome::Reset && op.session != NONE) {
            resets[op.session as usize].push(number);
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

    fn run(&mut self) {
        for (_, returned, number) in timeline(self.h) {
            if returned { self.complete(number) } else { self.invoke(number) }
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
        if let Some(lost) = &mut self.lost {
            lost.invoke(number, &op);
        }
        if op.is_write() && op.out != Outcome::Fail {
            self.judge_write(number, &op);
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
        if let Some(lost) = &mut self.lost {
            lost.complete(self.h, number, &self.resets, &mut self.out.found);
        }
        self.record(number, &op);
        self.returned[session] += 1;
        let (layout, returned) = (self.layout, self.returned[session]);
        layout.count(self.clock(op.session), session, returned);
        if op.out == Outcome::Reset {
            layout.tell(self.clock(op.session));
        }
    }

    /// Whether a write of unknown outcome is known to be in the end. A list shows it. A register shows its last value alone: of
    /// what was read before a loss, nobody knows.
    fn survived(&self, key: u32, version: u32) -> bool {
        let is_last = self.order.end[key as usize].is_some_and(|end| end.version == version);
        let shows_all = self.h.keys[key as usize].kind == KeyKind::List || self.first_reset == NEVER;
        version > 0 && (shows_all || is_last)
    }

    /// Keeps what the operation wrote or showed for those in whose past it will be.
    fn record(&mut self, number: u32, op: &Op) {
        let index = self.returned[op.session as usize];
        self.index[number as usize] = index;
        if op.is_write() {
            let key = self.h.key_of(op);
            let version = self.order.rank[op.target as usize];
            let owed = op.out == Outcome::Ok
                || (self.options.strict && op.out == Outcome::Info && self.survived(key, version));
            if owed {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The clocks that are still kept in the end.
    fn kept(text: &str) -> usize {
        let h = History::parse(text).expect("a history");
        let order = Order::new(&h);
        let options = Options::default();
        let mut sweep = Sweep::new(&h, &order, &options);
        sweep.run();
        assert!(sweep.out.found.is_empty(), "{:?}", sweep.out.found);
        sweep.arena.in_use()
    }

    #[test]
    fn clocks_are_forgotten_once_nobody_can_ask_for_them() {
        let list = r#"
            {"id":1,"s":"a","f":"append","k":"l","v":1,"inv":0,"ret":1,"out":"ok"}
            {"id":2,"s":"a","f":"append","k":"l","v":2,"inv":2,"ret":3,"out":"ok"}
            {"id":3,"s":"b","f":"append","k":"l","v":3,"inv":4,"ret":5,"out":"ok"}
            {"id":4,"s":"c","f":"read","k":"l","val":[1],"inv":6,"ret":7,"out":"ok"}
            {"id":5,"s":"d","f":"read","k":"l","val":[1,2],"inv":6,"ret":7,"out":"ok"}
            {"id":6,"s":"d","f":"read","k":"l","val":[1,2],"inv":8,"ret":9,"out":"ok"}
            {"id":7,"f":"final","k":"l","val":[1,2,3]}"#;
        assert_eq!(kept(list), 0);
        let register = r#"
            {"id":1,"s":"a","f":"put","k":"r","v":1,"inv":0,"ret":1,"out":"ok"}
            {"id":2,"s":"a","f":"put","k":"r","v":2,"inv":2,"ret":3,"out":"ok"}
            {"id":3,"s":"b","f":"read","k":"r","val":1,"inv":4,"ret":5,"out":"ok"}
            {"id":4,"s":"c","f":"read","k":"r","val":1,"inv":4,"ret":5,"out":"ok"}
            {"id":5,"s":"c","f":"read","k":"r","inv":6,"ret":7,"out":"fail"}
            {"id":6,"s":"c","f":"read","k":"r","inv":8,"ret":null,"out":"info"}"#;
        assert_eq!(kept(register), 0);
    }
}
