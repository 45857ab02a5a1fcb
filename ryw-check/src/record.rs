//! Operations that are to be written down, by whoever records a history.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::parse::{Function, Level, Outcome};

/// One operation, as its session saw it. Shown, it is one line of a history.
///
/// All times are of one clock, in nanoseconds; written values are unique for each key.
///
/// ```
/// use ryw_check::{Function, History, Operation, Value};
///
/// let session = |f| Operation { s: "u1".into(), k: Some("a".into()), ..Operation::new(f) };
/// let history = [
///     Operation { id: 1, v: Some(7), inv: Some(0), ret: Some(10), ..session(Function::Append) },
///     Operation { id: 2, val: Some(Value::List(vec![7])), inv: Some(20), ret: Some(30), ..session(Function::Read) },
/// ];
/// let lines: Vec<String> = history.iter().map(ToString::to_string).collect();
/// assert_eq!(lines[0], r#"{"id":1,"s":"u1","f":"append","k":"a","v":7,"inv":0,"ret":10,"out":"ok"}"#);
/// assert_eq!(History::parse(&lines.join("\n"))?.len(), 2);
/// # Ok::<(), ryw_check::InputError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Its number, unique in the history.
    pub id: i64,
    /// The session; empty for [`Function::Final`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub s: String,
    /// Which of the session's tabs: each does one thing after the other.
    #[serde(skip_serializing_if = "is_zero")]
    pub tab: u32,
    /// What it does.
    pub f: Function,
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<String>,
    /// The value that is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v: Option<i64>,
    /// What was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<Value>,
    /// The version of the row, where rows have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ver: Option<i64>,
    /// When the session asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inv: Option<u64>,
    /// When the answer came; `None` where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ret: Option<u64>,
    /// How it ended.
    pub out: Outcome,
    /// The message that was sent or received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<i64>,
    /// What was promised; without it, [`Level::Ryw`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// The node that has served it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The epoch of a write; of a [`Outcome::Reset`], the one that began with the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// What a read returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// All values that were appended, in their order.
    List(Vec<i64>),
    /// What was put last, if anything was.
    Register(Option<i64>),
    /// Several lists at once, by key.
    Snapshot(BTreeMap<String, Vec<i64>>),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Operation {
    /// An operation of which only that is known; it ended well.
    #[must_use]
    pub fn new(f: Function) -> Self {
        Self {
            id: 0,
            s: String::new(),
            tab: 0,
            f,
            k: None,
            v: None,
            val: None,
            ver: None,
            inv: None,
            ret: None,
            out: Outcome::Ok,
            msg: None,
            level: None,
            node: None,
            epoch: None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_line;

    #[test]
    fn every_word_is_read_as_it_is_written() {
        use Function::{Append, Final, Put, Read, Recv, Send, Snap};
        for f in [Append, Put, Read, Snap, Send, Recv, Final] {
            assert_eq!(parse_line(&Operation::new(f).to_string()).unwrap().f, Some(f));
        }
        for out in [Outcome::Ok, Outcome::Fail, Outcome::Info, Outcome::Reset] {
            let line = Operation { out, ..Operation::new(Read) }.to_string();
            assert_eq!(parse_line(&line).unwrap().out, Some(out));
        }
        for level in Level::ALL {
            let line = Operation { level: Some(level), ..Operation::new(Read) }.to_string();
            assert_eq!(parse_line(&line).unwrap().level, level);
            let word = line.split('"').rev().nth(1).unwrap();
            assert_eq!(word.parse::<Level>().unwrap(), level);
        }
        assert_eq!("LAST".parse::<Level>().unwrap_err().to_string().split(' ').next(), Some("\"LAST\""));
    }

    #[test]
    fn the_first_tab_is_left_out() {
        let line = |tab| Operation { tab, ..Operation::new(Function::Read) }.to_string();
        assert_eq!(line(0), r#"{"id":0,"f":"read","out":"ok"}"#);
        assert_eq!(line(3), r#"{"id":0,"tab":3,"f":"read","out":"ok"}"#);
    }
}
