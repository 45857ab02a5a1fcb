//! What is written into a data directory. Pure text, so that it can be tested as tables.

use std::time::Duration;

use super::{ServerError, ServerErrorKind, Standby};

pub(super) const PRIMARY: &str = "primary";
pub(super) const ROLE: &str = "ryw";
pub(super) const DATABASE: &str = "postgres";

/// Any local user may connect as superuser: the price of servers that need no password.
pub(super) const HBA: &str = "\
host all         all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
";

pub(super) type Setting = (String, String);

const DEFAULTS: [(&str, &str); 14] = [
    ("listen_addresses", "127.0.0.1"),
    // None at all: a socket's path may not exceed 107 bytes, and a temporary folder's may.
    ("unix_socket_directories", ""),
    // In the data directory instead of /dev/shm, where a killed server would leave it.
    ("dynamic_shared_memory_type", "mmap"),
    ("shared_buffers", "16MB"),
    ("max_connections", "100"),
    ("wal_level", "replica"),
    // Without, `Cluster::rewind` could not tell which pages were changed.
    ("wal_log_hints", "on"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("wal_keep_size", "64MB"),
    ("hot_standby", "on"),
    // With the default of 5 s, a standby whose first try comes too early loses 5 s.
    ("wal_retrieve_retry_interval", "100ms"),
    ("wal_receiver_status_interval", "1s"),
    ("logging_collector", "off"),
];

/// Decided by this module; another value would break it.
const RESERVED: [&str; 8] = [
    "cluster_name",
    "data_directory",
    "listen_addresses",
    "logging_collector",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "wal_log_hints",
];

/// The settings of every server; the last one of a name counts.
pub(super) fn base(name: &str, durable: bool) -> Vec<Setting> {
    let own = [("cluster_name", name), ("fsync", if durable { "on" } else { "off" })];
    DEFAULTS.iter().chain(&own).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(super) fn upstream(standby: &str, port: u16) -> [Setting; 2] {
    [("primary_conninfo".into(), conninfo(standby, port)), ("primary_slot_name".into(), standby.into())]
}

pub(super) fn conninfo(standby: &str, port: u16) -> String {
    format!("host=127.0.0.1 port={port} user={ROLE} application_name={standby}")
}

pub(super) fn apply_delay(delay: Duration) -> Setting {
    // Rounded up: a delay asked for must never become none.
    let millis = delay.as_nanos().div_ceil(1_000_000);
    ("recovery_min_apply_delay".into(), format!("{millis}ms"))
}

pub(super) fn render(settings: &[Setting]) -> String {
    let mut text = String::new();
    for (name, value) in settings {
        let value = value.replace('\\', r"\\").replace('\'', "''");
        text.extend([name, " = '", &value, "'\n"]);
    }
    text
}

pub(super) fn check_settings(settings: &[Setting]) -> Result<(), ServerError> {
    for (name, value) in settings {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(known) {
            return Err(invalid(format!("{name:?} is no name of a setting")));
        }
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(invalid(format!("{name} is decided by the cluster: remove it")));
        }
        if value.contains(['\n', '\r', '\0']) {
            return Err(invalid(format!("the value of {name} has more than one line")));
        }
    }
    Ok(())
}

pub(super) fn check_standbys(standbys: &[Standby]) -> Result<(), ServerError> {
    let mut known = vec![PRIMARY];
    for Standby { name, upstream, settings, apply_delay: _ } in standbys {
        // The rule for replication slots, which have the standby's name.
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 63 || !name.chars().all(letter) {
            return Err(invalid(format!("{name:?} is no name for a standby: use 1 to 63 of a-z, 0-9 and _")));
        }
        if known.contains(&name.as_str()) {
            return Err(invalid(format!("two servers are named {name:?}")));
        }
        if !known.contains(&upstream.as_str()) {
            return Err(invalid(format!("{name:?} follows {upstream:?}, which is not added before it")));
        }
        check_settings(settings)?;
        known.push(name);
    }
    Ok(())
}

pub(super) fn invalid(what: String) -> ServerError {
    ServerError::new(ServerErrorKind::InvalidConfig, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        let settings = [("a.b".into(), r"it's \ here".into())];
        assert_eq!(render(&settings), "a.b = 'it''s \\\\ here'\n");
    }

    #[test]
    fn a_delay_is_rounded_up_to_milliseconds() {
        for (delay, expected) in [
            (Duration::ZERO, "0ms"),
            (Duration::from_nanos(1), "1ms"),
            (Duration::from_millis(500), "500ms"),
            (Duration::from_micros(1500), "2ms"),
        ] {
            assert_eq!(apply_delay(delay).1, expected);
        }
    }

    #[test]
    fn settings_are_checked() {
        for (name, value, valid) in [
            ("work_mem", "1MB", true),
            ("auto_explain.log_analyze", "on", true),
            ("", "x", false),
            ("a b", "x", false),
            ("work_mem", "1MB\nport = 5432", false),
            ("PORT", "5432", false),
        ] {
            let result = check_settings(&[(name.into(), value.into())]);
            assert_eq!(result.is_ok(), valid, "{name:?} = {value:?}");
        }
    }

    #[test]
    fn standbys_are_checked() {
        let named = Standby::named;
        for (standbys, valid) in [
            (vec![], true),
            (vec![named("r1"), named("r2").upstream("r1")], true),
            (vec![named("r1").upstream("r2"), named("r2")], false),
            (vec![named("r1").upstream("r1")], false),
            (vec![named("r1"), named("r1")], false),
            (vec![named("primary")], false),
            (vec![named("R1")], false),
            (vec![named("../r1")], false),
            (vec![named("")], false),
            (vec![named("r1").setting("port", "1")], false),
        ] {
            let result = check_standbys(&standbys);
            assert_eq!(result.is_ok(), valid, "{standbys:?}");
        }
    }
}
