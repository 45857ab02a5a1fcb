//! How a session came to owe what somebody else wrote: the operations between cause and failure.

use std::collections::HashMap;

use super::{sweep::timeline, witness::Finding};
use crate::{
    history::{History, NONE},
    parse::Function,
    report::Kind,
};

/// How many violations are explained in full. Each takes a pass over the history; the others name cause and failure only.
const EXPLAINED: usize = 100;

pub(crate) fn complete(h: &History, found: &mut [Finding]) {
    let mut incomplete = found.iter_mut().filter(|finding| finding.incomplete).take(EXPLAINED).peekable();
    if incomplete.peek().is_none() {
        return;
    }
    let timeline = timeline(h);
    for finding in incomplete {
        if let [cause, failed] = finding.ops[..] {
            finding.ops = path(h, &timeline, cause, failed, finding.kind == Kind::Causal);
            finding.incomplete = false;
        }
    }
}

/// Follows the cause forward through time: each session learns of it once, by the first operation that could tell.
fn path(h: &History, timeline: &[(u64, bool, u32)], cause: u32, failed: u32, messages: bool) -> Vec<u32> {
    let mut knows: Vec<u32> = vec![NONE; h.sessions.len()];
    let mut before: HashMap<u32, u32> = HashMap::new();
    let start = timeline.partition_point(|event| *event < (h.ops[cause as usize].ret, true, cause));
    for &(_, returned, number) in &timeline[start..] {
        let op = &h.ops[number as usize];
        let known = knows[op.session as usize];
        if !returned {
            if known != NONE {
                before.insert(number, known);
                if number == failed && op.is_write() {
                    break;
                }
            }
            continue;
        }
        if !before.contains_key(&number) && number != cause {
            let mut sources =
                h.seen(op).iter().flat_map(|seen| h.visible(*seen)).map(|value| h.values[value as usize].writer);
            let message = h.sends.get(op.msg as usize).copied().filter(|_| messages && op.f == Function::Recv);
            if let Some(from) =
                sources.find(|writer| before.contains_key(writer)).or(message.filter(|send| before.contains_key(send)))
            {
                before.insert(number, from);
            }
        }
        if number == failed {
            break;
        }
        if known == NONE && (number == cause || before.contains_key(&number)) {
            knows[op.session as usize] = number;
        }
    }
    let mut ops = vec![failed];
    let mut at = failed;
    while let Some(previous) = before.get(&at) {
        ops.push(*previous);
        at = *previous;
    }
    if at != cause {
        return vec![cause, failed];
    }
    ops.reverse();
    ops
}
