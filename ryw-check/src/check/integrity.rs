//! What needs no clocks: values from nowhere, branches of a list, losses.

use std::collections::HashSet;

use super::{promises, witness::Finding};
use crate::{
    history::{History, KeyKind, NEVER, NONE, Seen},
    order::{Order, Source},
    parse::{Function, Outcome},
    report::Kind,
};

pub(crate) fn check(h: &History, order: &Order, found: &mut Vec<Finding>) {
    values(h, found);
    duplicates(h, found);
    branches(h, order, found);
    versions(h, found);
    losses(h, order, found);
}

/// Every value is judged at the first operation that shows it.
fn values(h: &History, found: &mut Vec<Finding>) {
    let mut judged_lists = vec![false; h.trie.len()];
    let mut judged = vec![false; h.values.len()];
    for (number, op) in (0..).zip(&h.ops) {
        for seen in h.seen(op).iter().filter(|seen| seen.place != NONE) {
            if h.keys[seen.key as usize].kind != KeyKind::List {
                value(h, seen.place, number, &mut judged, found);
                continue;
            }
            let mut node = seen.place;
            while !judged_lists[node as usize] && h.trie.depth(node) > 0 {
                judged_lists[node as usize] = true;
                value(h, h.trie.value(node), number, &mut judged, found);
                node = h.trie.parent(node);
            }
        }
    }
}

fn value(h: &History, value: u32, number: u32, judged: &mut [bool], found: &mut Vec<Finding>) {
    if std::mem::replace(&mut judged[value as usize], true) {
        return;
    }
    let known = &h.values[value as usize];
    match h.ops.get(known.writer as usize) {
        None => {
            found.push(Finding::new(Kind::ThinAir, known.key, &[number], "shows a value that nobody wrote"));
        }
        Some(write) if write.out == Outcome::Fail => {
            let what = "shows a value whose write certainly failed";
            found.push(Finding::new(Kind::ThinAir, known.key, &[known.writer, number], what));
        }
        Some(_) => {}
    }
}

/// An element that is twice in a list took effect twice. Judged once for each list that ends with its repetition.
fn duplicates(h: &History, found: &mut Vec<Finding>) {
    let repeated: HashSet<u32> = repetitions(h);
    let mut reported = HashSet::new();
    for (number, op) in (0..).zip(&h.ops).filter(|_| !repeated.is_empty()) {
        for seen in h.seen(op).iter().filter(|seen| h.keys[seen.key as usize].kind == KeyKind::List) {
            let mut node = seen.place;
            while node != NONE {
                let value = h.trie.value(node);
                if repeated.contains(&node) && reported.insert(value) {
                    let ops: Vec<u32> =
                        [h.values[value as usize].writer, number].into_iter().filter(|op| *op != NONE).collect();
                    found.push(Finding::new(Kind::ThinAir, seen.key, &ops, "shows one element twice"));
                }
                node = h.trie.parent(node);
            }
        }
    }
}

/// The nodes whose value is also further up. A value that is at one node only is in no list twice.
fn repetitions(h: &History) -> HashSet<u32> {
    let mut first = vec![NONE; h.values.len()];
    let again = (0..h.trie.len() as u32).filter(|node| {
        let value = h.trie.value(*node);
        value != NONE && std::mem::replace(&mut first[value as usize], *node) != NONE
    });
    let again: Vec<u32> = again.collect();
    again.into_iter().filter(|node| h.trie.contains(h.trie.parent(*node), h.trie.value(*node))).collect()
}

/// A list that is no prefix of the surviving one: allowed if it was read before somebody was told of a loss.
fn branches(h: &History, order: &Order, found: &mut Vec<Finding>) {
    let last_reset = h.ops.iter().filter(|op| op.out == Outcome::Reset).map(|op| op.ret).max();
    let mut reported = HashSet::new();
    for (number, op) in (0..).zip(&h.ops) {
        for seen in h.seen(op).iter().filter(|seen| h.keys[seen.key as usize].kind == KeyKind::List) {
            // Without a final list nobody knows which of two is dead.
            let told = |last: u64| last >= op.inv || !order.has_final(seen.key);
            let allowed = op.f != Function::Final && last_reset.is_some_and(told);
            if order.is_main(h, seen.place) || allowed || !promises(op.level, Kind::Fork) {
                continue;
            }
            let root = branch(h, order, *seen);
            if let Some(end) = order.end[seen.key as usize].filter(|_| reported.insert(root)) {
                let what = "two lists of which none is a prefix of the other";
                found.push(Finding::new(Kind::Fork, seen.key, &[end.op, number], what));
            }
        }
    }
}

/// The first list of a branch that is not the surviving one.
fn branch(h: &History, order: &Order, seen: Seen) -> u32 {
    let mut node = seen.place;
    while !order.is_main(h, h.trie.parent(node)) {
        node = h.trie.parent(node);
    }
    node
}

/// One write with two row versions, or two writes with one; after a reset, versions may have been used again.
fn versions(h: &History, found: &mut Vec<Finding>) {
    if h.ops.iter().any(|op| op.out == Outcome::Reset) {
        return;
    }
    for (first, second) in &h.version_conflicts {
        let key = h.key_of(&h.ops[*second as usize]);
        found.push(Finding::new(Kind::Fork, key, &[*first, *second], "one value with two row versions"));
    }
    let mut rows: Vec<(u32, i64, u32)> = h.values.iter().filter_map(|v| Some((v.key, v.ver?, v.ver_from))).collect();
    rows.sort_unstable();
    for pair in rows.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        found.push(Finding::new(Kind::Fork, pair[0].0, &[pair[0].2, pair[1].2], "two values with one row version"));
    }
    let mut swaps: Vec<(u32, u32, u32)> = h.values.iter().filter_map(|v| Some((v.key, v.prev?, v.writer))).collect();
    swaps.retain(|(.., writer)| h.ops.get(*writer as usize).is_some_and(|op| op.out == Outcome::Ok));
    swaps.sort_unstable();
    for pair in swaps.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        found.push(Finding::new(Kind::Fork, pair[0].0, &[pair[0].2, pair[1].2], "two writes replaced the same value"));
    }
}

/// Acknowledged writes that are newer than the final state, or not in it, and of which their session was not told.
fn losses(h: &History, order: &Order, found: &mut Vec<Finding>) {
    let mut last_told = vec![None; h.sessions.len()];
    for op in h.ops.iter().filter(|op| op.out == Outcome::Reset && op.session != NONE && op.ret != NEVER) {
        let told: &mut Option<u64> = &mut last_told[op.session as usize];
        *told = (*told).max(Some(op.ret));
    }
    for (number, op) in (0..).zip(&h.ops).filter(|(_, op)| op.is_write() && op.out == Outcome::Ok) {
        let key = h.key_of(op) as usize;
        let version = order.rank[op.target as usize];
        let Some(end) = order.end[key].filter(|end| end.is_final) else { continue };
        let lost = match order.source[key] {
            Source::List => version == 0,
            Source::Rows | Source::Derived => version > end.version,
            Source::Nothing => false,
        };
        let told = last_told[op.session as usize].is_some_and(|told| told >= op.inv);
        if lost && !told && promises(op.level, Kind::Lost) {
            let what = "an acknowledged write did not survive, and its session was not told";
            found.push(Finding::new(Kind::Lost, key as u32, &[number, end.op], what));
        }
    }
}
