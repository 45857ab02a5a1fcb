//! A violation while it is being looked for.

use crate::{
    history::{History, NONE},
    report::{Kind, Violation},
};

#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// Numbers of operations, causes first.
    pub(crate) ops: Vec<u32>,
    pub(crate) key: u32,
    pub(crate) what: &'static str,
    /// Whether operations between the first and the last are still to be found.
    pub(crate) incomplete: bool,
}

impl Finding {
    pub(crate) fn new(kind: Kind, key: u32, ops: &[u32], what: &'static str) -> Self {
        Self { kind, ops: ops.to_vec(), key, what, incomplete: false }
    }

    pub(crate) fn violation(&self, h: &History) -> Violation {
        let ops: Vec<_> = self.ops.iter().map(|number| &h.ops[*number as usize]).collect();
        let session = ops.iter().rev().map(|op| op.session).find(|session| *session != NONE);
        let mut why = self.what.to_owned();
        if self.key != NONE {
            why = format!("key {}: {why}", h.key_names.text(self.key).escape_debug());
        }
        for op in &ops {
            if op.node != NONE {
                why += &format!("; {} answered by {}", op.id, h.nodes.text(op.node).escape_debug());
                if let Some(epoch) = op.epoch {
                    why += &format!(" in epoch {epoch}");
                }
            }
        }
        Violation {
            kind: self.kind,
            session: session.map_or_else(String::new, |session| h.sessions.text(session).to_owned()),
            ops: ops.iter().map(|op| op.id).collect(),
            why,
        }
    }
}
