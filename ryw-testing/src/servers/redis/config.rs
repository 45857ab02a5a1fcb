//! What is written into a server's configuration file. Pure text, so that it can be tested as tables.

use std::path::Path;

use super::{ServerError, ServerErrorKind};

pub(super) type Setting = (String, String);

/// Decided by this module; another value would break it.
const RESERVED: [&str; 16] = [
    "bind",
    "cluster-enabled",
    "cluster-port",
    "daemonize",
    "dir",
    "include",
    "logfile",
    "masterauth",
    "pidfile",
    "port",
    "replica-announce-port",
    "replicaof",
    "requirepass",
    "slaveof",
    "supervised",
    "tls-port",
];

/// What every process gets, sentinels too.
pub(super) fn process(port: u16, folder: &Path) -> Vec<Setting> {
    vec![
        ("port".into(), port.to_string()),
        ("bind".into(), "127.0.0.1".into()),
        ("dir".into(), quote(&folder.to_string_lossy())),
        ("daemonize".into(), "no".into()),
    ]
}

/// What every server gets, and before all others: the last one of a name counts.
pub(super) fn server(persistent: bool) -> Vec<Setting> {
    let mut settings = vec![
        ("save", ""),
        ("appendonly", if persistent { "yes" } else { "no" }),
        // With the default of 5 s, a replica would be in sync that much later.
        ("repl-diskless-sync-delay", "0"),
        ("replica-announce-ip", "127.0.0.1"),
    ];
    if persistent {
        settings.push(("appendfsync", "always"));
    }
    settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(super) fn password(password: &str) -> [Setting; 2] {
    // The second for the day when it becomes a replica of one with the same password.
    [("requirepass".into(), quote(password)), ("masterauth".into(), quote(password))]
}

pub(super) fn replica_of(port: u16) -> Setting {
    ("replicaof".into(), format!("127.0.0.1 {port}"))
}

pub(super) fn render(settings: &[Setting]) -> String {
    let mut text = String::new();
    for (name, value) in settings {
        let value = if value.is_empty() { "\"\"" } else { value };
        text.extend([name, " ", value, "\n"]);
    }
    text
}

/// As one word, whatever is in it.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

/// For the place of the password in a URL.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

pub(super) fn check_settings(settings: &[Setting]) -> Result<(), ServerError> {
    for (name, value) in settings {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(invalid(format!("{name:?} is no name of a setting")));
        }
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(invalid(format!("{name} is decided by the builder: use its methods")));
        }
        if value.contains(['\n', '\r', '\0']) {
            return Err(invalid(format!("the value of {name} has more than one line")));
        }
    }
    Ok(())
}

pub(super) fn check_password(password: Option<&str>) -> Result<(), ServerError> {
    match password {
        Some("") => Err(invalid("the password is empty, which Redis takes for none".into())),
        _ => Ok(()),
    }
}

pub(super) fn invalid(what: String) -> ServerError {
    ServerError::new(ServerErrorKind::InvalidConfig, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_one_a_line() {
        let settings = [("save".into(), String::new()), ("save".into(), "900 1".into())];
        assert_eq!(render(&settings), "save \"\"\nsave 900 1\n");
    }

    #[test]
    fn any_text_is_one_word() {
        for (text, expected) in [
            ("plain", r#""plain""#),
            (r#"a "b" \c"#, r#""a \"b\" \\c""#),
            ("a\nb", r#""a\x0ab""#),
            ("ä", r#""\xc3\xa4""#),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn passwords_are_encoded_for_urls() {
        for (text, expected) in [("a-Z_0.~", "a-Z_0.~"), ("p@ss:/ü", "p%40ss%3A%2F%C3%BC")] {
            assert_eq!(percent_encode(text), expected);
        }
    }

    #[test]
    fn settings_are_checked() {
        for (name, value, valid) in [
            ("maxmemory", "10mb", true),
            ("save", "", true),
            ("client-output-buffer-limit", "replica 1mb 1mb 60", true),
            ("", "x", false),
            ("a b", "x", false),
            ("maxmemory", "1mb\nport 6379", false),
            ("Port", "6379", false),
            ("replicaof", "127.0.0.1 6379", false),
        ] {
            let result = check_settings(&[(name.into(), value.into())]);
            assert_eq!(result.is_ok(), valid, "{name:?} = {value:?}");
        }
    }

    #[test]
    fn an_empty_password_is_refused() {
        for (password, valid) in [(None, true), (Some("x"), true), (Some(""), false)] {
            assert_eq!(check_password(password).is_ok(), valid, "{password:?}");
        }
    }
}
