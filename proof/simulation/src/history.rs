//! The history of a run, as `ryw-check` reads it.

use std::fmt::Write;

use ryw_check::Operation;

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
    ops: u32,
}

impl History {
    pub(crate) fn len(&self) -> u64 {
        self.ops.into()
    }

    /// Numbers an operation, and writes it down.
    pub(crate) fn add(&mut self, line: Operation) {
        self.ops += 1;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{}", Operation { id: self.ops.into(), ..line });
    }
}

/// FNV-1a: says whether two runs were the same, nothing more.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
