//! How much a history could have shown.

use std::collections::{HashMap, HashSet};

use crate::{
    history::{History, NEVER, NONE},
    order::Order,
    parse::{Function, Outcome},
};

/// For every entry of [`History::seen`] in a session's read: the oldest version that it or a read which began no earlier showed.
pub(crate) fn oldest_later(h: &History, order: &Order) -> Vec<u32> {
    let mut reads: Vec<(u64, u32)> =
        (0..).zip(&h.ops).filter(|(_, op)| op.is_answered_read()).map(|(n, op)| (op.inv, n)).collect();
    reads.sort_unstable();
    let mut oldest = vec![u32::MAX; h.keys.len()];
    let mut result = vec![u32::MAX; h.seen.len()];
    for together in reads.chunk_by(|a, b| a.0 == b.0).rev() {
        let entries = || {
            together.iter().flat_map(|(_, n)| {
                let op = &h.ops[*n as usize];
                op.target as usize..(op.target + op.count) as usize
            })
        };
        for entry in entries() {
            let seen = h.seen[entry];
            if let Some(version) = order.version(h, seen) {
                oldest[seen.key as usize] = oldest[seen.key as usize].min(version);
            }
        }
        for entry in entries() {
            result[entry] = oldest[h.seen[entry].key as usize];
        }
    }
    result
}

/// The share of replicas among the reads that say who answered, and operations per second.
pub(crate) fn shares(h: &History) -> (f64, f64) {
    let mut primaries = HashSet::new();
    for op in h.ops.iter().filter(|op| op.is_write() && op.out == Outcome::Ok && op.node != NONE) {
        primaries.insert((op.node, op.epoch));
    }
    let mut served: HashMap<bool, u64> = HashMap::new();
    for op in h.ops.iter().filter(|op| op.is_answered_read() && op.node != NONE) {
        *served.entry(primaries.contains(&(op.node, op.epoch))).or_default() += 1;
    }
    let count = |primary: bool| served.get(&primary).copied().unwrap_or(0) as f64;
    let share = if served.is_empty() { 0.0 } else { count(false) / (count(false) + count(true)) };

    let timed = || h.ops.iter().filter(|op| op.f != Function::Final);
    let ends = || timed().map(|op| if op.ret == NEVER { op.inv } else { op.ret });
    let rate = match (timed().map(|op| op.inv).min(), ends().max()) {
        (Some(first), Some(last)) => timed().count() as f64 * 1e9 / last.saturating_sub(first).max(1) as f64,
        _ => 0.0,
    };
    (share, rate)
}
