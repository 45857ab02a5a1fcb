//! A history in memory: operations with small numbers in the place of names, values and lists.

use std::collections::HashMap;

use crate::{
    names::Names,
    parse::{Function, Level, Outcome},
    trie::Trie,
};

/// Stands for "none" among numbers of operations, values and nodes.
pub(crate) const NONE: u32 = u32::MAX;

/// When an operation returned that never did.
pub(crate) const NEVER: u64 = u64::MAX;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) id: i64,
    pub(crate) inv: u64,
    pub(crate) ret: u64,
    pub(crate) epoch: Option<i64>,
    pub(crate) session: u32,
    pub(crate) node: u32,
    /// The place of its first entry in [`History::seen`]; of a write, its value.
    pub(crate) target: u32,
    /// How many entries it has there.
    pub(crate) count: u32,
    pub(crate) msg: u32,
    pub(crate) f: Function,
    pub(crate) out: Outcome,
    pub(crate) level: Level,
}

impl Op {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.f, Function::Append | Function::Put)
    }

    /// Whether this is a read of a session whose answer came.
    pub(crate) fn is_answered_read(&self) -> bool {
        matches!(self.f, Function::Read | Function::Snap) && self.count > 0
    }

    /// Whether both were under way at some time, be it an instant.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.inv <= other.ret && other.inv <= self.ret
    }
}

/// What a read returned for one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) key: u32,
    /// Of a list, its node in the trie; of a register, its value, [`NONE`] for `null`.
    pub(crate) place: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Unknown,
    List,
    Register,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) kind: KeyKind,
    pub(crate) root: u32,
}

/// A value of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) key: u32,
    pub(crate) writer: u32,
    pub(crate) ver: Option<i64>,
    pub(crate) ver_from: u32,
    /// The value that this one replaced by compare-and-set: `Some(NONE)` for `null`.
    pub(crate) prev: Option<u32>,
}

/// A history that has been read and is well-formed.
///
/// ```
/// let history = ryw_check::History::parse(
///     r#"{"id":1,"s":"u1","f":"append","k":"a","v":7,"inv":0,"ret":10,"out":"ok"}
///        {"id":2,"s":"u1","f":"read","k":"a","val":[],"inv":20,"ret":30,"out":"ok"}"#,
/// )?;
/// assert_eq!(history.len(), 2);
/// # Ok::<(), ryw_check::InputError>(())
/// ```
#[derive(Debug, Default)]
pub struct History {
    pub(crate) ops: Vec<Op>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) keys: Vec<Key>,
    pub(crate) values: Vec<Value>,
    pub(crate) trie: Trie,
    pub(crate) sessions: Names,
    pub(crate) nodes: Names,
    pub(crate) key_names: Names,
    /// The operation that sent each message.
    pub(crate) sends: Vec<u32>,
    /// Values for which two operations named different row versions, and these operations.
    pub(crate) version_conflicts: Vec<(u32, u32)>,
}

impl History {
    /// How many operations there are, `final` ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// What a read, snapshot or `final` returned.
    pub(crate) fn seen(&self, op: &Op) -> &[Seen] {
        if op.is_write() { &[] } else { &self.seen[op.target as usize..(op.target + op.count) as usize] }
    }

    pub(crate) fn key_of(&self, op: &Op) -> u32 {
        if op.is_write() {
            self.values[op.target as usize].key
        } else {
            self.seen.get(op.target as usize).map_or(NONE, |seen| seen.key)
        }
    }

    /// The values that are visible in a list or a register: of a list all, the newest first.
    pub(crate) fn visible(&self, seen: Seen) -> impl Iterator<Item = u32> + '_ {
        let list = self.keys[seen.key as usize].kind == KeyKind::List;
        let mut place = seen.place;
        std::iter::from_fn(move || {
            if place == NONE {
                None
            } else if list {
                let value = self.trie.value(place);
                place = self.trie.parent(place);
                (value != NONE).then_some(value)
            } else {
                Some(std::mem::replace(&mut place, NONE))
            }
        })
    }
}

/// A value as a number can be compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Atom {
    Int(i64),
    Text(u32),
}

/// The numbers of values.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) texts: Names,
    pub(crate) numbers: HashMap<(u32, Atom), u32>,
}
