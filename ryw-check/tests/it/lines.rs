//! Histories as short lines.
//!
//! A line is `id session function key value inv-ret [words]`, so that the point of a history can be seen. Lists are written
//! `1,2`, the empty one `[]`, no value `null`; `@LEVEL` is a promise, `vN` a row version, `mN` a message, `nN` a node. Keys before `m` are
//! lists, the others registers.

use std::fmt::Write;

use ryw_check::{History, Options, Report, check};

pub(crate) fn json(lines: &str) -> String {
    let mut text = String::new();
    for line in lines.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, session, f, key, value, times, ..] = words[..] else { panic!("{line}") };
        let (inv, ret) = times.split_once('-').unwrap();
        let ret = if ret.is_empty() { "null" } else { ret };
        write!(text, r#"{{"id":{id},"s":"{session}","f":"{f}","inv":{inv},"ret":{ret}"#).unwrap();
        let val = |value: &str, key: &str| match value {
            "null" => "null".to_owned(),
            "[]" => "[]".to_owned(),
            list if key < "m" => format!("[{list}]"),
            one => one.to_owned(),
        };
        match f {
            "append" | "put" => write!(text, r#","k":"{key}","v":{value}"#).unwrap(),
            "read" | "final" => write!(text, r#","k":"{key}","val":{}"#, val(value, key)).unwrap(),
            "snap" => {
                let entries: Vec<String> =
                    key.split('+').zip(value.split('+')).map(|(k, v)| format!(r#""{k}":{}"#, val(v, k))).collect();
                write!(text, r#","val":{{{}}}"#, entries.join(",")).unwrap();
            }
            _ => {}
        }
        let mut out = "ok";
        for word in &words[6..] {
            match *word {
                "info" | "fail" | "reset" => out = word,
                level if level.starts_with('@') => write!(text, r#","level":"{}""#, &level[1..]).unwrap(),
                ver if ver.starts_with('v') => write!(text, r#","ver":{}"#, &ver[1..]).unwrap(),
                msg if msg.starts_with('m') => write!(text, r#","msg":"{msg}""#).unwrap(),
                prev if prev.starts_with('p') => write!(text, r#","prev":{}"#, &prev[1..]).unwrap(),
                epoch if epoch.starts_with('e') => write!(text, r#","epoch":{}"#, &epoch[1..]).unwrap(),
                node if node.starts_with('n') => write!(text, r#","node":"{node}""#).unwrap(),
                tab if tab.starts_with('t') => write!(text, r#","tab":{}"#, &tab[1..]).unwrap(),
                other => panic!("{other}"),
            }
        }
        writeln!(text, r#","out":"{out}"}}"#).unwrap();
    }
    text
}

/// The bound of `BOUNDED` reads is 10.
pub(crate) fn checked(lines: &str) -> Report {
    let mut options = Options::default();
    options.max_staleness = Some(10);
    check(&History::parse(&json(lines)).unwrap_or_else(|error| panic!("{lines}: {error}")), &options)
}

/// Kind and witness of each violation, sorted.
pub(crate) fn found(lines: &str) -> String {
    let mut found: Vec<String> = checked(lines)
        .violations
        .iter()
        .map(|v| v.ops.iter().fold(v.kind.to_string(), |text, op| format!("{text} {op}")))
        .collect();
    found.sort();
    found.join("|")
}

/// Each case is a name, a history, and its violations.
#[track_caller]
pub(crate) fn each_has_exactly_its_violations(cases: &[(&str, &str, &str)]) {
    let wrong = cases.iter().filter_map(|(name, lines, expected)| {
        let found = found(lines);
        (found != *expected).then(|| format!("{name}: {found:?}, not {expected:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
