//! Small random histories: mostly right, often nearly wrong.

use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum F {
    Write,
    Read,
    Send,
    Recv,
}

/// An operation of the oracle's model. Key `a` is a list, `b` a register with row versions, `c` one without any.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) id: i64,
    pub(crate) s: usize,
    pub(crate) f: F,
    pub(crate) key: usize,
    pub(crate) v: i64,
    /// What was read: a list, or at most one value.
    pub(crate) val: Vec<i64>,
    pub(crate) inv: u64,
    pub(crate) ret: Option<u64>,
    pub(crate) out: &'static str,
    pub(crate) msg: i64,
    pub(crate) level: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) ops: Vec<Op>,
    /// The surviving list of key `a`: the final one, or the longest that was read where there is none.
    pub(crate) list: Vec<i64>,
    pub(crate) without_final: bool,
}

pub(crate) const LIST: usize = 0;
pub(crate) const ROWS: usize = 1;

pub(crate) fn text(case: &Case) -> String {
    let mut text = String::new();
    for op in &case.ops {
        let Op { id, s, inv, out, level, msg, v, .. } = op;
        let key = ["a", "b", "c"][op.key];
        let ret = op.ret.map_or("null".to_owned(), |ret| ret.to_string());
        write!(text, r#"{{"id":{id},"s":"u{s}","inv":{inv},"ret":{ret},"out":"{out}","level":"{level}""#).unwrap();
        let answered = matches!(*out, "ok" | "reset");
        match op.f {
            F::Write if op.key == LIST => write!(text, r#","f":"append","k":"{key}","v":{v}"#).unwrap(),
            F::Write if op.key == ROWS => write!(text, r#","f":"put","k":"{key}","v":{v},"ver":{v}"#).unwrap(),
            F::Write => write!(text, r#","f":"put","k":"{key}","v":{v}"#).unwrap(),
            F::Send => write!(text, r#","f":"send","msg":{msg}"#).unwrap(),
            F::Recv => write!(text, r#","f":"recv","msg":{msg}"#).unwrap(),
            F::Read if !answered => write!(text, r#","f":"read","k":"{key}""#).unwrap(),
            F::Read if op.key == LIST => write!(text, r#","f":"read","k":"{key}","val":{:?}"#, op.val).unwrap(),
            F::Read => {
                let val = op.val.first().map_or("null".to_owned(), i64::to_string);
                write!(text, r#","f":"read","k":"{key}","val":{val}"#).unwrap();
            }
        }
        text += "}\n";
    }
    if !case.without_final {
        writeln!(text, r#"{{"id":1000,"f":"final","k":"a","val":{:?}}}"#, case.list).unwrap();
    }
    text
}

/// Up to 6 operations of up to 3 sessions on 2 keys. Values of registers grow in the order of writing.
pub(crate) fn case(rng: &mut fastrand::Rng) -> Case {
    let mut case = Case::default();
    let count = rng.usize(2..=6);
    let sessions = rng.usize(1..=3);
    let other_key = rng.usize(1..=2);
    let resets = rng.u8(..8) == 0;
    let levels: &[&str] = match rng.u8(..4) {
        0 => &["RYW"],
        1 => &["CAUSAL"],
        2 => &["SESSION", "STRONG"],
        _ => &["EVENTUAL", "MONOTONIC", "RYW", "SESSION", "CAUSAL", "STRONG"],
    };
    let mut now = 0;
    let mut values: [Vec<i64>; 3] = Default::default();
    let mut sent: Vec<i64> = Vec::new();
    for id in 1..=count as i64 {
        now += rng.u64(0..8);
        let inv = now;
        let ret = inv + if rng.u8(..4) == 0 { rng.u64(0..25) } else { rng.u64(0..6) };
        let key = if resets || rng.bool() { LIST } else { other_key };
        let f = match rng.u8(..10) {
            0..4 => F::Write,
            4..8 => F::Read,
            8 => F::Send,
            _ if sent.is_empty() => F::Read,
            _ => F::Recv,
        };
        let mut op = Op {
            id,
            s: rng.usize(..sessions),
            f,
            key,
            v: id,
            val: Vec::new(),
            inv,
            ret: Some(ret),
            out: "ok",
            msg: id,
            level: levels[rng.usize(..levels.len())],
        };
        match f {
            F::Write => {
                op.out = match rng.u8(..12) {
                    0 => "fail",
                    1 | 2 => "info",
                    _ => "ok",
                };
                if op.out == "info" && rng.bool() {
                    op.ret = None;
                }
                if op.out != "fail" || rng.u8(..6) == 0 {
                    values[key].push(op.v);
                }
            }
            F::Read => {
                let all = &values[key];
                let shown = if rng.u8(..3) > 0 { all.len() } else { rng.usize(..=all.len()) };
                op.val = if key == LIST {
                    all[..shown].to_vec()
                } else {
                    all[..shown].last().copied().into_iter().collect()
                };
                if resets && rng.u8(..3) == 0 {
                    op.out = "reset";
                }
            }
            F::Send => sent.push(op.msg),
            F::Recv => op.msg = sent[rng.usize(..sent.len())],
        }
        if resets && rng.u8(..4) == 0 {
            values[LIST].pop();
        }
        if key == LIST && rng.u8(..30) == 0 {
            let at = values[LIST].len();
            if at > 1 {
                values[LIST].swap(at - 1, at - 2);
            }
        }
        if f != F::Read && rng.u8(..40) == 0 {
            op.inv += 20;
            op.ret = op.ret.map(|ret| ret + 20);
        }
        case.ops.push(op);
    }
    case.list = values[LIST].clone();
    if rng.u8(..15) == 0 {
        case.list.pop();
    }
    case.without_final = !resets && rng.u8(..4) == 0;
    if case.without_final {
        let read = case.ops.iter().filter(|op| op.f == F::Read && op.key == LIST && matches!(op.out, "ok" | "reset"));
        case.list = read
            .map(|op| op.val.clone())
            .reduce(|longest, list| if list.len() > longest.len() { list } else { longest })
            .unwrap_or_default();
    }
    case
}
