//! Input that is no history: an error with its place, never a panic.

use ryw_check::{History, Loader};

fn error(text: &[u8]) -> (usize, Option<&'static str>) {
    let mut loader = Loader::default().max_line(1000);
    let result = loader.read("h", text).err().or_else(|| loader.finish().err());
    let error = result.expect("the input is unusable");
    assert!(error.to_string().starts_with("h:"), "{error}");
    (error.line, error.problem.field())
}

const GOOD: &str = r#"{"id":1,"s":"u","f":"append","k":"a","v":7,"inv":0,"ret":10,"out":"ok"}"#;

#[test]
fn names_line_and_field() {
    let with = |from: &str, to: &str| format!("{GOOD}\n{}", GOOD.replace("\"id\":1", "\"id\":2").replace(from, to));
    for (from, to, field) in [
        ("\"id\":2", "\"id\":1", "id"),
        ("\"id\":2,", "", "id"),
        ("\"id\":2", "\"id\":1.5", "id"),
        ("\"s\":\"u\",", "", "s"),
        ("\"s\":\"u\"", "\"s\":5", "s"),
        ("\"s\":\"u\"", "\"s\":\"u\",\"tab\":-1", "tab"),
        ("append", "apend", "f"),
        ("\"f\":\"append\",", "", "f"),
        ("\"k\":\"a\",", "", "k"),
        ("\"v\":7,", "", "v"),
        ("\"v\":7", "\"v\":[7]", "v"),
        ("\"v\":7", "\"v\":7", "v"),
        ("\"v\":7", "\"v\":9223372036854775808", "v"),
        ("\"inv\":0,", "", "inv"),
        ("\"inv\":0", "\"inv\":-1", "inv"),
        ("\"inv\":0", "\"inv\":11", "ret"),
        ("\"ret\":10", "\"ret\":null", "ret"),
        (",\"ret\":10", "", "ret"),
        (",\"out\":\"ok\"", "", "out"),
        ("\"ok\"", "\"OK\"", "out"),
        ("\"ok\"", "\"ok\",\"level\":\"FAST\"", "level"),
        ("\"ok\"", "\"ok\",\"out\":\"ok\"", "out"),
        ("\"f\":\"append\"", "\"f\":\"put\"", "k"),
        ("\"f\":\"append\"", "\"f\":\"send\"", "msg"),
        ("\"f\":\"append\"", "\"f\":\"recv\",\"msg\":1", "msg"),
        ("\"f\":\"append\"", "\"f\":\"read\"", "val"),
        ("\"f\":\"append\"", "\"f\":\"snap\"", "val"),
        ("\"f\":\"append\"", "\"f\":\"snap\",\"val\":[]", "val"),
        ("\"f\":\"append\"", "\"f\":\"snap\",\"val\":{\"a\":[],\"a\":[]}", "val"),
        ("\"f\":\"append\"", "\"f\":\"read\",\"val\":{}", "val"),
        ("\"f\":\"append\"", "\"f\":\"read\",\"val\":3", "val"),
        ("\"f\":\"append\"", "\"f\":\"read\",\"val\":{\"a\":{}}", "val"),
        ("\"f\":\"append\"", "\"f\":\"put\",\"prev\":[]", "k"),
    ] {
        assert_eq!(error(with(from, to).as_bytes()), (2, Some(field)), "{from} -> {to}");
    }
}

#[test]
fn bytes_that_are_no_text() {
    assert_eq!(error(b"{\"id\":\xff}"), (1, None));
    assert_eq!(error(b"\0\0\0"), (1, Some("?")));
    assert_eq!(error(b"{\"nonsense\":1}"), (1, Some("?")));
    assert_eq!(error(format!("{GOOD}x").as_bytes()), (1, Some("?")));
    assert_eq!(error(&[b' '; 1001]), (1, None));
    let deep = format!("{{\"val\":{}", "[".repeat(900));
    assert_eq!(error(deep.as_bytes()), (1, Some("val")));
    assert_eq!(error(&GOOD.as_bytes()[..20]), (1, Some("f")));
}

#[test]
fn lines_up_to_the_limit_blank_lines_and_crlf() {
    let padded = format!("\n{GOOD}\r\n   \n{}", " ".repeat(1000));
    let mut loader = Loader::default().max_line(1000);
    loader.read("h", padded.as_bytes()).unwrap();
    assert_eq!(loader.finish().unwrap().len(), 1);
    assert!(History::parse("").unwrap().is_empty() && !History::parse(GOOD).unwrap().is_empty());
}

#[test]
fn ids_out_of_order_are_still_unique() {
    let line = |id: i64| format!(r#"{{"id":{id},"s":"u","f":"read","k":"a","inv":0,"ret":null,"out":"info"}}"#) + "\n";
    assert_eq!(error((line(5) + &line(3) + &line(5)).as_bytes()), (3, Some("id")));
    assert_eq!(error((line(5) + &line(3) + &line(9) + &line(9)).as_bytes()), (4, Some("id")));
    assert_eq!(error((line(5) + &line(5)).as_bytes()), (2, Some("id")));
    assert_eq!(History::parse(&(line(5) + &line(3) + &line(9))).unwrap().len(), 3);
}

#[test]
fn what_is_said_about_an_unusable_line() {
    for (line, error) in [
        (
            r#"{"id":1,"s":true}"#,
            "-:1:16: field `s`: invalid type: boolean `true`, expected an integer, a string, null, a list or an object of these",
        ),
        ("5", "-:1:1: field `?`: invalid type: integer `5`, expected an object with the fields of an operation"),
        (r#"{"level":"FAST"}"#, "-:1:16: field `level`: not one of the words that the format knows"),
    ] {
        assert_eq!(History::parse(line).unwrap_err().to_string(), error);
    }
}

#[test]
fn the_column_of_bytes_that_are_no_text() {
    let mut loader = Loader::default();
    assert_eq!(loader.read("h", &b"{\"id\":\xff}"[..]).unwrap_err().column, 7);
}

#[test]
fn an_answer_that_told_of_a_loss_need_not_show_anything() {
    for f in ["read", "snap"] {
        let line = format!(r#"{{"id":1,"s":"u","f":"{f}","k":"a","inv":0,"ret":9,"out":"reset"}}"#);
        assert_eq!(History::parse(&line).unwrap().len(), 1);
    }
}

#[test]
fn random_damage_never_panics() {
    let mut rng = fastrand::Rng::with_seed(7);
    let text = format!(
        "{GOOD}\n{}",
        r#"{"id":2,"s":"u","f":"snap","val":{"a":[7,"x"],"b":null},"inv":5,"ret":20,"out":"ok"}"#
    );
    for _ in 0..20_000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = if rng.bool() { rng.u8(..) } else { text.as_bytes()[rng.usize(..text.len())] };
        }
        let mut loader = Loader::default();
        if loader.read("h", &bytes[..]).is_ok()
            && let Ok(history) = loader.finish()
        {
            let _ = ryw_check::check(&history, &ryw_check::Options::default());
        }
    }
}
