//! The version order of every key.

use std::collections::HashMap;

use crate::{
    history::{History, KeyKind, NEVER, NONE, Seen},
    parse::{Function, Outcome},
};

/// Where a key's version order comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The longest final list. Without one the longest that was read, and behind it what was acknowledged and never read: then nothing
    /// says what a loss took.
    List,
    /// Row versions.
    Rows,
    /// Compare-and-set, or a single writer: says nothing about what was lost.
    Derived,
    /// Unknown.
    Nothing,
}

/// The surviving state of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) version: u32,
    pub(crate) op: u32,
    /// Whether it is a `final`, rather than the longest list of all reads.
    pub(crate) is_final: bool,
}

#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) source: Vec<Source>,
    pub(crate) end: Vec<Option<End>>,
    /// The version of a value, from 1; 0 when it has none.
    pub(crate) rank: Vec<u32>,
    /// Of each list, how much of the surviving list it is.
    pub(crate) main_depth: Vec<u32>,
    pub(crate) observed: Vec<bool>,
}

impl Order {
    pub(crate) fn new(h: &History) -> Self {
        let mut order = Self {
            source: vec![Source::Nothing; h.keys.len()],
            end: vec![None; h.keys.len()],
            rank: vec![0; h.values.len()],
            main_depth: vec![0; h.trie.len()],
            observed: vec![false; h.values.len()],
        };
        order.lists(h);
        order.registers(h);
        order
    }

    /// The version that a read shows; `None` without a version order.
    pub(crate) fn version(&self, h: &History, seen: Seen) -> Option<u32> {
        match (h.keys[seen.key as usize].kind, seen.place) {
            (_, NONE) => Some(0),
            (KeyKind::List, node) if self.is_main(h, node) => Some(h.trie.depth(node)),
            (KeyKind::List, _) => Some(self.surviving_part(h, seen)),
            (_, value) => Some(self.rank[value as usize]).filter(|rank| *rank > 0),
        }
    }

    /// The newest version that a read shows: on another branch of a list, not all before it need be there.
    pub(crate) fn newest_shown(&self, h: &History, seen: Seen) -> Option<u32> {
        if h.keys[seen.key as usize].kind != KeyKind::List || self.is_main(h, seen.place) {
            return self.version(h, seen);
        }
        h.visible(seen).map(|value| self.rank[value as usize]).max()
    }

    /// Whether a `final` says what survived.
    pub(crate) fn has_final(&self, key: u32) -> bool {
        self.end[key as usize].is_some_and(|end| end.is_final)
    }

    /// Whether a list is a prefix of the surviving one.
    pub(crate) fn is_main(&self, h: &History, node: u32) -> bool {
        node == NONE || self.main_depth[node as usize] == h.trie.depth(node)
    }

    /// How much of the surviving list is on another branch too, in whatever order.
    fn surviving_part(&self, h: &History, seen: Seen) -> u32 {
        let mut ranks: Vec<u32> =
            h.visible(seen).map(|value| self.rank[value as usize]).filter(|rank| *rank > 0).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks.iter().zip(1..).take_while(|(rank, at)| *rank == at).count() as u32
    }

    fn lists(&mut self, h: &History) {
        let mut main = vec![NONE; h.keys.len()];
        for (number, op) in h.ops.iter().enumerate() {
            let is_final = op.f == Function::Final;
            for seen in h.seen(op) {
                let key = seen.key as usize;
                if h.keys[key].kind != KeyKind::List {
                    continue;
                }
                let depth = if seen.place == NONE { 0 } else { h.trie.depth(seen.place) };
                let better = self.end[key].is_none_or(|end| (is_final, depth) > (end.is_final, end.version));
                if better {
                    self.end[key] = Some(End { version: depth, op: number as u32, is_final });
                    main[key] = seen.place;
                }
            }
        }
        let mut on_main = vec![false; h.trie.len()];
        for (key, node) in main.into_iter().enumerate() {
            if h.keys[key].kind == KeyKind::List {
                self.source[key] = Source::List;
            }
            let mut node = node;
            while node != NONE && h.trie.depth(node) > 0 {
                on_main[node as usize] = true;
                self.rank[h.trie.value(node) as usize] = h.trie.depth(node);
                node = h.trie.parent(node);
            }
        }
        for (value, known) in h.values.iter().enumerate() {
            let acknowledged = h.ops.get(known.writer as usize).is_some_and(|op| op.out == Outcome::Ok);
            let is_unread = self.source[known.key as usize] == Source::List && self.rank[value] == 0;
            if acknowledged && is_unread && !self.has_final(known.key) {
                self.rank[value] = self.end[known.key as usize].map_or(0, |end| end.version) + 1;
            }
        }
        for node in 0..h.trie.len() as u32 {
            if h.trie.depth(node) > 0 {
                self.main_depth[node as usize] = if on_main[node as usize] {
                    h.trie.depth(node)
                } else {
                    self.main_depth[h.trie.parent(node) as usize]
                };
            }
        }
    }

    fn registers(&mut self, h: &History) {
        let register = |key: u32| h.keys[key as usize].kind != KeyKind::List;
        for op in &h.ops {
            for seen in h.seen(op).iter().filter(|seen| register(seen.key) && seen.place != NONE) {
                self.observed[seen.place as usize] = true;
            }
        }
        let mut by_key: Vec<Vec<u32>> = vec![Vec::new(); h.keys.len()];
        for (number, value) in h.values.iter().enumerate() {
            let out = h.ops.get(value.writer as usize).map(|op| op.out);
            let counts = out == Some(Outcome::Ok) || (self.observed[number] && out != Some(Outcome::Fail));
            if register(value.key) && counts {
                by_key[value.key as usize].push(number as u32);
            }
        }
        for (key, values) in by_key.iter().enumerate() {
            if !register(key as u32) {
                continue;
            }
            let (source, ranked) = if let Some(ranked) = by_rows(h, values) {
                (Source::Rows, ranked)
            } else if let Some(ranked) = by_swaps(h, values).or_else(|| by_single_writer(h, values)) {
                (Source::Derived, ranked)
            } else {
                (Source::Nothing, Vec::new())
            };
            self.source[key] = source;
            for (value, rank) in ranked {
                self.rank[value as usize] = rank;
            }
        }
        for (number, op) in h.ops.iter().enumerate().filter(|(_, op)| op.f == Function::Final) {
            for seen in h.seen(op).iter().filter(|seen| register(seen.key)) {
                let Some(version) = self.version(h, *seen) else { continue };
                let end = &mut self.end[seen.key as usize];
                if end.is_none_or(|end| version > end.version) {
                    *end = Some(End { version, op: number as u32, is_final: true });
                }
            }
        }
    }
}

fn by_rows(h: &History, values: &[u32]) -> Option<Vec<(u32, u32)>> {
    let mut rows: Vec<(i64, u32)> =
        values.iter().map(|value| Some((h.values[*value as usize].ver?, *value))).collect::<Option<_>>()?;
    rows.sort_unstable();
    let mut rank = 0;
    let mut last = None;
    let ranked = rows.into_iter().map(|(ver, value)| {
        rank += u32::from(last != Some(ver));
        last = Some(ver);
        (value, rank)
    });
    Some(ranked.collect())
}

fn by_swaps(h: &History, values: &[u32]) -> Option<Vec<(u32, u32)>> {
    let mut next = HashMap::new();
    for value in values {
        if next.insert(h.values[*value as usize].prev?, *value).is_some() {
            return None;
        }
    }
    let mut ranked = Vec::with_capacity(values.len());
    let mut at = NONE;
    while let Some(value) = next.remove(&at) {
        ranked.push((value, ranked.len() as u32 + 1));
        at = value;
    }
    next.is_empty().then_some(ranked)
}

/// A session's own order, where no two of its writes overlap and only the last may have an unknown outcome: one that is
/// unknown may take effect after its successors.
fn by_single_writer(h: &History, values: &[u32]) -> Option<Vec<(u32, u32)>> {
    let writer = |value: u32| h.ops.get(h.values[value as usize].writer as usize);
    let mut sorted: Vec<(u64, u32)> =
        values.iter().map(|value| Some((writer(*value)?.inv, *value))).collect::<Option<_>>()?;
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let (first, second) = (writer(pair[0].1)?, writer(pair[1].1)?);
        let ordered = first.session == second.session && first.out == Outcome::Ok && first.ret < second.inv;
        if !ordered || first.ret == NEVER {
            return None;
        }
    }
    Some(sorted.into_iter().zip(1..).map(|((_, value), rank)| (value, rank)).collect())
}
