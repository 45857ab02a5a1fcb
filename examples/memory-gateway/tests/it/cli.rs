//! What can't work is refused at the start: exit code 2, and one line that names what to change.

use std::net::TcpListener;

use ryw_testing::servers::postgres::{Cluster, Standby};

use crate::{
    gateway::Gateway,
    program::{Finished, command, finish},
};

const SECRET: &str = "hunter2";

async fn run(arguments: &[&str]) -> Finished {
    finish(command(&[&["--listen", "127.0.0.1:0"], arguments].concat())).await
}

/// Refused, with everything in `says` on standard error.
fn assert_refused(finished: &Finished, says: &[&str]) {
    let Finished { code, stdout, stderr } = finished;
    assert_eq!(*code, Some(2), "{finished:?}");
    assert_eq!(stdout, "", "{finished:?}");
    assert!(says.iter().all(|part| stderr.contains(part)), "{stderr} lacks one of {says:?}");
    assert!(!stderr.contains("panicked") && !stderr.contains(SECRET), "{stderr}");
}

/// The same, in one line.
fn assert_refused_in_a_line(finished: &Finished, says: &[&str]) {
    assert_refused(finished, says);
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert!(matches!(&*lines, [line] if line.starts_with("memory-gateway: ")), "{lines:#?}");
}

#[tokio::test]
async fn flags_that_exclude_each_other() {
    for (arguments, says) in [
        (&["--postgres", "--primary", "x", "--replica", "y"][..], &["--postgres", "--primary", "cannot be used"][..]),
        (&["--primary", "x"], &["--replica", "required"]),
        (&["--replica", "x"], &["--primary", "required"]),
        (&["--postgres", "--replicas", "2"], &["--postgres", "--replicas", "cannot be used"]),
        (&["--primary", "x", "--replica", "y", "--lag-ms", "5"], &["--lag-ms", "--primary", "cannot be used"]),
        (&["--lag-ms", "soon"], &["--lag-ms", "soon"]),
        (&["--replicas", "17"], &["--replicas", "1..=16"]),
        (&["demo", "--seconds", "0"], &["--seconds", "1..=3600"]),
        (&["--listen", "here"], &["--listen", "here"]),
    ] {
        assert_refused(&finish(command(arguments)).await, says);
    }
}

#[tokio::test]
async fn environment_that_does_not_parse() {
    for (name, value, accepted) in [
        ("RYW_WINDOW_SECONDS", "0", "whole seconds, 1 or more"),
        ("READ_AFTER_WRITE_WINDOW", "a minute", "whole seconds, 1 or more"),
        ("SESSION_TTL_SECONDS", "-1", "whole seconds, 1 or more"),
        ("READ_AFTER_WRITE_CLEANUP_INTERVAL", "0", "whole seconds, 1 or more"),
        ("READ_AFTER_WRITE_CACHE_SIZE", "lots", "1 or more"),
        ("DEFAULT_CONSISTENCY_LEVEL", "nonsense", "EVENTUAL"),
        ("ENABLE_CONSISTENCY_ENFORCEMENT", "perhaps", "true, false"),
    ] {
        let mut command = command(&["--listen", "127.0.0.1:0"]);
        command.env(name, value);
        assert_refused_in_a_line(&finish(command).await, &[name, value, accepted]);
    }
    let mut two_names = command(&["--listen", "127.0.0.1:0"]);
    two_names.env("RYW_WINDOW_SECONDS", "5").env("READ_AFTER_WRITE_WINDOW", "6");
    assert_refused_in_a_line(&finish(two_names).await, &["RYW_WINDOW_SECONDS", "READ_AFTER_WRITE_WINDOW"]);
}

#[tokio::test]
async fn a_key_that_is_none_is_not_repeated() {
    for key in KEYS {
        let finished = with_key(key).await;
        assert_refused_in_a_line(&finished, &["32"]);
        assert!(!finished.stderr.contains(key), "{finished:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_told_by_its_variable() {
    for key in KEYS {
        assert_refused_in_a_line(&with_key(key).await, &["RYW_TOKEN_KEY"]);
    }
}

const KEYS: [&str; 3] = [SECRET, "1:hunter2", "1:aHVudGVyMg=="];

async fn with_key(key: &str) -> Finished {
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    command.env("RYW_TOKEN_KEY", key);
    finish(command).await
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = finish(command(&["--listen", &address])).await;
    assert_refused_in_a_line(&finished, &["listen", &address, "in use"]);
}

#[tokio::test]
async fn names_of_hosts_are_addresses_too() {
    let mut gateway = Gateway::from(command(&["--listen", "localhost:0", "--console", "localhost:0"])).await;
    assert!(gateway.address.ip().is_loopback());
    assert_eq!(gateway.get("/livez", &[]).await.status.as_u16(), 200);
    assert!(gateway.console().await.starts_with("http://"));
    let finished = finish(command(&["--listen", "nowhere.invalid:0"])).await;
    assert_refused_in_a_line(&finished, &["can't listen on nowhere.invalid:0"]);
}

#[tokio::test]
async fn a_url_that_leads_nowhere() {
    // Bound and never listening, so that nothing else answers there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://app:{SECRET}@127.0.0.1:{port}/app");
    let finished = run(&["--primary", &url, "--replica", &url]).await;
    assert_refused_in_a_line(&finished, &["primary", "can't be reached", "host, port, user and password"]);
}

#[tokio::test]
async fn a_url_that_is_none() {
    for url in [
        "",
        "hunter2",
        "postgres:app:hunter2@localhost/app",
        "postgres://app:hunter2@localhost:port/app",
        "postgres://app:hunter2@/app?port=none",
        "postgres://app:hunter2:localhost/app",
        "host=localhost user=app password='hunter2",
        "host=localhost user=app password=half hunter2",
        "user=app password=hunter2",
    ] {
        refuses_url(url).await;
    }
    let finished = run(&["demo", "--primary", "x", "--replica", "y"]).await;
    assert_refused_in_a_line(&finished, &["connection string of primary"]);
}

/// A space in a password that nobody has quoted.
#[tokio::test]
async fn half_a_password_is_not_printed_either() {
    refuses_url("host=localhost user=app password=half hunter2=1").await;
}

async fn refuses_url(url: &str) {
    let finished = run(&["--primary", url, "--replica", "postgres://localhost/app"]).await;
    assert_refused_in_a_line(&finished, &["connection string of primary", "postgres://", "key=value"]);
    let finished = run(&["--primary", "postgres://localhost/app", "--replica", url]).await;
    assert_refused_in_a_line(&finished, &["connection string of r1", "postgres://", "key=value"]);
}

#[tokio::test]
async fn nodes_in_the_wrong_place() {
    let start = || Cluster::builder().standby(Standby::named("r1")).start().unwrap();
    let (cluster, other) = (start(), start());
    let [primary, standby] = ["primary", "r1"].map(|name| cluster.server(name).unwrap().url());
    let [_, foreign] = ["primary", "r1"].map(|name| other.server(name).unwrap().url());
    for (flags, says) in [
        (["--primary", &*primary, "--replica", &foreign], ["r1 belongs to cluster", "standbys of this primary"]),
        (["--primary", &standby, "--replica", &standby], ["primary", "is a standby"]),
        (["--primary", &primary, "--replica", &primary], ["r1", "accepts writes"]),
    ] {
        assert_refused_in_a_line(&run(&flags).await, &says);
    }
    // Whoever has mixed them up, and has one address wrong besides, is told both.
    let nowhere = "postgres://app@127.0.0.1:1/app";
    let mixed = run(&["--primary", &standby, "--replica", nowhere]).await;
    assert_refused_in_a_line(&mixed, &["r1 can't be reached", "of those that answer (primary) none accepts writes"]);
    let mixed = run(&["--primary", nowhere, "--replica", &primary]).await;
    assert_refused_in_a_line(&mixed, &["r1", "accepts writes", "primary itself can't be reached"]);
    let flags = ["--primary", &*primary, "--replica", &standby, "--replica", &foreign];
    assert_refused_in_a_line(&run(&flags).await, &["r2 belongs to cluster"]);
}
