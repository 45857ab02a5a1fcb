//! Reads that returned before the write was invoked which they show: a cycle of causes, or a value out of thin air.

use std::collections::{HashMap, VecDeque};

use super::witness::Finding;
use crate::{
    history::{History, KeyKind, NEVER, NONE},
    parse::Function,
    report::Kind,
};

/// How many such reads are followed through the whole graph; the others are reported as thin air.
const FOLLOWED: usize = 64;

pub(crate) fn check(h: &History, future_reads: &[(u32, u32)], found: &mut Vec<Finding>) {
    if future_reads.is_empty() {
        return;
    }
    let graph = Graph::new(h);
    for (at, (cause, effect)) in future_reads.iter().enumerate() {
        let key = if h.ops[*cause as usize].is_write() { h.key_of(&h.ops[*cause as usize]) } else { NONE };
        let circle = if at < FOLLOWED { graph.path(*effect, *cause) } else { None };
        found.push(match circle {
            Some(ops) => Finding::new(Kind::Cycle, key, &ops, "operations depend on each other in a circle"),
            None => {
                Finding::new(Kind::ThinAir, key, &[*cause, *effect], "shows what was written only after it returned")
            }
        });
    }
}

/// The causal order as edges. Besides operations there is a node for each return, which later invocations follow, and for
/// each list, which follows its prefix; so there are no more edges than input.
struct Graph {
    ops: usize,
    next: HashMap<usize, Vec<usize>>,
}

impl Graph {
    fn new(h: &History) -> Self {
        let ops = h.ops.len();
        let mut graph = Self { ops, next: HashMap::new() };
        let mut returns: Vec<Vec<(u64, usize)>> = vec![Vec::new(); h.sessions.len()];
        for (number, op) in h.ops.iter().enumerate().filter(|(_, op)| op.f != Function::Final && op.ret != NEVER) {
            returns[op.session as usize].push((op.ret, number));
            graph.edge(number, ops + number);
        }
        for session in &mut returns {
            session.sort_unstable();
            for pair in session.windows(2) {
                graph.edge(ops + pair[0].1, ops + pair[1].1);
            }
        }
        for (number, op) in h.ops.iter().enumerate().filter(|(_, op)| op.f != Function::Final) {
            let returns = &returns[op.session as usize];
            let before = returns.partition_point(|(ret, _)| *ret < op.inv);
            if let Some((_, last)) = before.checked_sub(1).and_then(|last| returns.get(last)) {
                graph.edge(ops + last, number);
            }
            for seen in h.seen(op).iter().filter(|seen| op.is_answered_read() && seen.place != NONE) {
                let list = h.keys[seen.key as usize].kind == KeyKind::List;
                let from =
                    if list { 2 * ops + seen.place as usize } else { h.values[seen.place as usize].writer as usize };
                graph.edge(from, number);
            }
            if op.f == Function::Recv {
                graph.edge(h.sends[op.msg as usize] as usize, number);
            }
        }
        for node in (0..h.trie.len() as u32).filter(|node| h.trie.depth(*node) > 0) {
            graph.edge(2 * ops + h.trie.parent(node) as usize, 2 * ops + node as usize);
            graph.edge(h.values[h.trie.value(node) as usize].writer as usize, 2 * ops + node as usize);
        }
        graph
    }

    fn edge(&mut self, from: usize, to: usize) {
        self.next.entry(from).or_default().push(to);
    }

    /// The operations on a shortest path.
    fn path(&self, from: u32, to: u32) -> Option<Vec<u32>> {
        let (from, to) = (from as usize, to as usize);
        let mut before = HashMap::from([(from, from)]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front().filter(|node| *node != to) {
            for next in self.next.get(&node).into_iter().flatten() {
                before.entry(*next).or_insert_with(|| {
                    queue.push_back(*next);
                    node
                });
            }
        }
        let mut ops = Vec::new();
        let mut node = to;
        while node != from {
            if node < self.ops {
                ops.push(node as u32);
            }
            node = *before.get(&node)?;
        }
        ops.push(from as u32);
        ops.reverse();
        Some(ops)
    }
}
