//! Two `STRONG` snapshots that contradict each other: a long fork.
//!
//! Weaker levels allow it: concurrent writes may be seen in either order.

use std::collections::HashMap;

use super::witness::Finding;
use crate::{
    history::{History, NONE},
    order::{Order, Source},
    parse::{Function, Level},
    report::Kind,
};

/// How many keys of a snapshot are compared, because every pair of them is.
const COMPARED: usize = 64;

/// The versions of two keys that a snapshot shows, and the snapshot.
type Pair = (u32, u32, u32);

pub(crate) fn check(h: &History, order: &Order, found: &mut Vec<Finding>) {
    let mut pairs: HashMap<(u32, u32), Vec<Pair>> = HashMap::new();
    let strong = |op: &crate::history::Op| op.f == Function::Snap && op.level == Level::Strong;
    for (number, op) in (0..).zip(&h.ops).filter(|(_, op)| strong(op)) {
        let mut keys: Vec<(u32, u32)> =
            h.seen(op).iter().filter_map(|seen| Some((seen.key, order.version(h, *seen)?))).collect();
        keys.retain(|(key, _)| order.source[*key as usize] != Source::Nothing);
        keys.sort_unstable();
        keys.truncate(COMPARED);
        let mut keys = &keys[..];
        while let [(key, version), others @ ..] = keys {
            for (other, other_version) in others {
                pairs.entry((*key, *other)).or_default().push((*version, *other_version, number));
            }
            keys = others;
        }
    }
    let mut sorted: Vec<_> = pairs.into_iter().collect();
    sorted.sort_unstable_by_key(|(keys, _)| *keys);
    for (_, mut snaps) in sorted {
        snaps.sort_unstable();
        contradictions(&snaps, found);
    }
}

/// Sorted by one key, the other must not go back; equal versions of the first contradict nothing.
fn contradictions(snaps: &[Pair], found: &mut Vec<Finding>) {
    let mut newest: Option<Pair> = None;
    for group in snaps.chunk_by(|a, b| a.0 == b.0) {
        for snap in group {
            if let Some(newest) = newest.filter(|newest| newest.1 > snap.1) {
                let what = "two snapshots show two writes in opposite orders";
                found.push(Finding::new(Kind::Fork, NONE, &[newest.2, snap.2], what));
            }
        }
        newest = newest.into_iter().chain(group.last().copied()).max_by_key(|snap| snap.1);
    }
}
