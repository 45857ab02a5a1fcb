//! The command: output and exit codes.

use std::{
    io::{ErrorKind, Write},
    process::{Command, Stdio},
};

fn run(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ryw-check"))
        .args(args)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Where its arguments are refused it ends without reading, sooner or later than this.
    match child.stdin.take().unwrap().write_all(input.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const WRITE: &str = r#"{"id":17,"s":"u3","f":"append","k":"a","v":7,"inv":0,"ret":10,"out":"ok","node":"p","epoch":1}"#;
const STALE: &str = r#"{"id":21,"s":"u3","f":"read","k":"a","val":[],"inv":20,"ret":30,"out":"ok","node":"r"}"#;
const FRESH: &str = r#"{"id":21,"s":"u3","f":"read","k":"a","val":[7],"inv":20,"ret":30,"out":"ok","node":"r"}"#;

#[test]
fn clean() {
    let (code, out, _) = run(&["--json"], &format!("{WRITE}\n{FRESH}\n"));
    assert_eq!(code, Some(0));
    assert_eq!(out, "{\"ops\":2,\"violations\":0,\"temptations\":0,\"verdict\":\"clean\"}\n");
}

#[test]
fn violated() {
    let text = format!("{WRITE}\n{STALE}\n{}\n", r#"{"id":30,"f":"final","k":"a","val":[7]}"#);
    let (code, out, _) = run(&["--json", "--min-temptations", "9"], &text);
    assert_eq!(code, Some(1));
    let why =
        "key a: a read does not show an earlier write of its session; 17 answered by p in epoch 1; 21 answered by r";
    let expected = format!(
        "{{\"kind\":\"RYW\",\"session\":\"u3\",\"ops\":[17,21],\"why\":\"{why}\"}}\n\
         {{\"ops\":3,\"violations\":1,\"temptations\":1,\"verdict\":\"violated\"}}\n"
    );
    assert_eq!(out, expected);
    assert!(run(&[], &text).1.starts_with("RYW session \"u3\" ops [17, 21]: key a"));
}

#[test]
fn unusable() {
    let (code, out, error) = run(&[], &format!("{WRITE}\n{{\"id\":true}}\n"));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.starts_with("ryw-check: -:2:") && error.contains("field `id`"), "{error}");
    assert_eq!(run(&["/nonexistent/history"], "").0, Some(2));
    assert_eq!(run(&["--fault", "x"], "").0, Some(2));
    let bounded = FRESH.replace("\"node\"", "\"level\":\"BOUNDED\",\"node\"");
    assert_eq!(run(&[], &format!("{WRITE}\n{bounded}\n")).0, Some(2));
    assert_eq!(run(&["--max-staleness", "5"], &format!("{WRITE}\n{bounded}\n")).0, Some(0));
}

/// The example of the format's documentation.
#[test]
fn documented() {
    let page = include_str!("../../../docs/HISTORY.md");
    let block = |language: &str| page.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(run(&[], block("json")), (Some(1), block("text").to_owned(), String::new()));
}

#[test]
fn void_below_each_floor() {
    let text = format!("{WRITE}\n{FRESH}\n");
    let code = |args: &[&str]| run(args, &text).0;
    assert_eq!(code(&["--min-temptations", "1"]), Some(3));
    assert_eq!(code(&["--min-replica-share", "1"]), Some(0));
    let (void, out, _) =
        run(&["--min-replica-share", "1"], &text.replace("\"r\"", "\"p\"").replace("30,", "30,\"epoch\":1,"));
    assert_eq!(void, Some(3), "{out}");
    assert!(out.contains("below the floor: replica share: 0.000 of 1.000"), "{out}");
    assert_eq!(code(&["--min-rate", "66666666"]), Some(0));
    assert_eq!(run(&["--min-rate", "100000000"], WRITE).0, Some(0));
    assert_eq!(code(&["--min-rate", "66666667"]), Some(3));
    assert_eq!(code(&["--min-fault", "cut=2", "--fault", "cut=1", "--fault", "cut=1"]), Some(0));
    assert_eq!(code(&["--min-fault", "cut=2", "--fault", "cut=1", "--fault", "kill=5"]), Some(3));
    assert_eq!(code(&["--min-fault", "cut=0"]), Some(0));
    let most = format!("cut={}", u64::MAX);
    assert_eq!(code(&["--min-fault", &most, "--fault", &most, "--fault", "cut=1"]), Some(0));
    for bad in ["NaN", "inf", "-1", "many"] {
        assert_eq!(code(&[&format!("--min-rate={bad}")]), Some(2), "{bad}");
        assert_eq!(code(&[&format!("--min-replica-share={bad}")]), Some(2), "{bad}");
    }
    assert_eq!(code(&["--min-replica-share", "1.01"]), Some(2));
    let (code, _, error) = run(&["--json", "--min-temptations", "9"], &text);
    assert_eq!((code, error.as_str()), (Some(3), "below the floor: temptations: 0 of 9\n"));
}
