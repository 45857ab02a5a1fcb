//! What was there before an operation began, whoever did it: for bounded staleness and `STRONG`.

use crate::{
    history::{History, NONE},
    parse::Level,
};

/// A key's newest version as time goes on: (when it was known to be there, version, operation), both growing.
type Growth = Vec<(u64, u32, u32)>;

#[derive(Debug)]
pub(crate) struct Newest {
    shown: Vec<Growth>,
    acknowledged: Vec<Growth>,
}

impl Newest {
    /// Nothing is kept for histories that promise neither.
    pub(crate) fn new(h: &History) -> Self {
        let wanted = h.ops.iter().any(|op| matches!(op.level, Level::Strong | Level::Bounded));
        let keys = if wanted { h.keys.len() } else { 0 };
        Self { shown: vec![Vec::new(); keys], acknowledged: vec![Vec::new(); keys] }
    }

    pub(crate) fn push(&mut self, key: u32, write: bool, at: u64, version: u32, op: u32) {
        let of_write = if write { self.acknowledged.get_mut(key as usize) } else { None };
        for growth in [self.shown.get_mut(key as usize), of_write].into_iter().flatten() {
            if growth.last().is_none_or(|(_, newest, _)| version > *newest) {
                growth.push((at, version, op));
            }
        }
    }

    /// An operation that returned before `before` with something newer than `version`: the version and the operation.
    pub(crate) fn newer(&self, key: u32, writes_only: bool, before: u64, version: u32) -> Option<(u64, u32, u32)> {
        let growth = if writes_only { &self.acknowledged } else { &self.shown };
        let growth = growth.get(key as usize)?;
        let end = growth.partition_point(|(at, ..)| *at < before);
        growth[..end].last().copied().filter(|(_, newest, op)| *newest > version && *op != NONE)
    }
}
