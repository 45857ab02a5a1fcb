//! The history of a run, as `ryw-check` reads it.

use std::fmt::Write;

/// What the sessions saw, and, apart from it, what a session saw that nothing guards.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) guarded: History,
    pub(crate) control: History,
}

/// Lines of JSON, one operation each.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) text: String,
    ops: u64,
}

/// One operation. What is empty or `None` is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Op {
    pub(crate) session: String,
    pub(crate) tab: usize,
    pub(crate) f: &'static str,
    pub(crate) key: String,
    pub(crate) value: Option<u64>,
    /// What was read, as JSON.
    pub(crate) read: Option<String>,
    pub(crate) version: Option<u64>,
    pub(crate) inv: Option<u64>,
    pub(crate) ret: Option<u64>,
    pub(crate) out: &'static str,
    pub(crate) message: Option<u64>,
    pub(crate) level: &'static str,
    pub(crate) node: String,
    pub(crate) epoch: Option<u32>,
}

impl History {
    pub(crate) fn len(&self) -> u64 {
        self.ops
    }

    pub(crate) fn add(&mut self, op: &Op) {
        self.ops += 1;
        let line = &mut self.text;
        // Writing to a String does not fail.
        let _ = write!(line, r#"{{"id":{},"f":"{}","out":"{}""#, self.ops, op.f, op.out);
        for (name, text) in [("s", &op.session), ("k", &op.key), ("node", &op.node)] {
            if !text.is_empty() {
                let _ = write!(line, r#","{name}":"{text}""#);
            }
        }
        if !op.level.is_empty() {
            let _ = write!(line, r#","level":"{}""#, op.level);
        }
        if op.tab > 0 {
            let _ = write!(line, r#","tab":{}"#, op.tab);
        }
        let epoch = op.epoch.map(u64::from);
        for (name, number) in [
            ("v", op.value),
            ("ver", op.version),
            ("inv", op.inv),
            ("ret", op.ret),
            ("msg", op.message),
            ("epoch", epoch),
        ] {
            if let Some(number) = number {
                let _ = write!(line, r#","{name}":{number}"#);
            }
        }
        if let Some(read) = &op.read {
            let _ = write!(line, r#","val":{read}"#);
        }
        line.push_str("}\n");
    }
}

/// FNV-1a: says whether two runs were the same, nothing more.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
