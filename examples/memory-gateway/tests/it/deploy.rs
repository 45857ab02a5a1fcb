//! The files in `deploy/`, as Prometheus itself reads them (Debian's package `prometheus` has `promtool`).

use std::{
    collections::BTreeSet,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use ryw_testing::servers::redis::RedisServer;
use tokio::task::block_in_place;

use crate::{gateway::Gateway, program::command};

/// All that `promtool` would have otherwise: two names are what users ask for, although Prometheus would have seconds, and
/// `_total` at the end of a counter.
const COMPLAINTS: [&str; 3] = [
    r#"ryw_enforcement_count counter metrics should have "_total" suffix"#,
    r#"ryw_enforcement_count non-histogram and non-summary metrics should not have "_count" suffix"#,
    "ryw_read_latency_ms metric names should not contain abbreviated units",
];

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy")).join(file)
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there: install Debian's package prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn accepts(arguments: &[&str]) {
    let output = promtool(arguments, "");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn dashboard() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(deploy("grafana/dashboards/tower-ryw.json")).unwrap()).unwrap()
}

/// The code that names metrics.
fn declared() -> String {
    let file = |path: &str| std::fs::read_to_string(deploy("..").join(path)).unwrap();
    ["ryw-telemetry/src/counted.rs", "ryw-telemetry/src/watched.rs", "examples/memory-gateway/src/store.rs"]
        .map(file)
        .concat()
}

fn expressions(dashboard: &serde_json::Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    let path = |file| deploy(file).to_str().unwrap().to_owned();
    accepts(&["check", "rules", &path("prometheus/alerts.yml")]);
    accepts(&["test", "rules", &path("prometheus/alerts.test.yml")]);
    accepts(&["check", "config", &path("prometheus/prometheus.yml")]);
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let read = |file| std::fs::read_to_string(deploy(file)).unwrap();
    let (rules, tests) = (read("prometheus/alerts.yml"), read("prometheus/alerts.test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let fires = |alert: &str| tests.contains(&format!("alertname: {alert}\n        exp_alerts"));
    let silent: Vec<_> = alerts.iter().filter(|alert| !fires(alert)).collect();
    assert!(alerts.len() > 10 && silent.is_empty(), "{silent:?}");
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let expressions = expressions(&dashboard());
    assert!(expressions.len() > 15, "{expressions:?}");
    let rule = |(number, expression): (usize, &String)| {
        let expression = expression.replace("$__rate_interval", "1m").replace("$job", ".*");
        format!("      - record: r:{number}\n        expr: {}\n", serde_json::to_string(&expression).unwrap())
    };
    let rules: String = expressions.iter().enumerate().map(rule).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "groups:\n  - name: dashboard\n    rules:\n{rules}").unwrap();
    accepts(&["check", "rules", file.path().to_str().unwrap()]);
}

fn complaints(text: &str) -> Vec<String> {
    let lint = String::from_utf8(promtool(&["check", "metrics"], text).stderr).unwrap();
    lint.lines().map(str::to_owned).collect()
}

/// With marks in several Redis, after a read that has waited, and with whatever else makes further series.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scraped_of_a_gateway_with_all_it_can_have_is_accepted() {
    let servers = [(); 3].map(|()| block_in_place(|| RedisServer::builder().start()).unwrap());
    let urls = servers.each_ref().map(RedisServer::url);
    let mut command = command(&["--listen", "127.0.0.1:0", "--lag-ms", "5", "--spot-check-one-in", "1"]);
    command.env("RYW_TOKEN_KEY", "1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    for url in &urls {
        command.args(["--redis", url]);
    }
    let gateway = Gateway::from(command).await;
    let headers = [("x-session-id", "me"), ("x-consistency-level", "RYW")];
    for _ in 0..50 {
        gateway.put("/v1/memory/acme/k", &headers, "1").await;
        gateway.get("/v1/memory/acme/k", &headers).await;
    }
    gateway.get("/v1/memory/acme/k", &[("ryw-token", "forged"), ("x-consistency-level", "RYW")]).await;
    gateway.get("/v1/memory/acme/k", &[("x-consistency-level", "nonsense")]).await;
    let text = gateway.get("/metrics", &[]).await.text();
    for name in ["ryw_store_latency_seconds_bucket{", "ryw_wait_seconds_bucket{", "ryw_quorum_available "] {
        assert!(text.contains(&format!("\n{name}")), "{name} of\n{text}");
    }
    assert_eq!(complaints(&text), COMPLAINTS, "of\n{text}");
}

#[tokio::test]
async fn what_is_scraped_is_accepted_and_is_what_dashboard_and_alerts_ask_for() {
    let gateway = Gateway::start(&["--lag-ms", "0"]).await;
    let headers = [("x-session-id", "me"), ("x-consistency-level", "RYW")];
    gateway.put("/v1/memory/acme/k", &headers, "1").await;
    gateway.get("/v1/memory/acme/k", &headers).await;
    let text = gateway.get("/metrics", &[]).await.text();
    assert_eq!(complaints(&text), COMPLAINTS, "of\n{text}");

    let asked =
        expressions(&dashboard()).join(" ") + &std::fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let asked: BTreeSet<_> = asked.split(|c| !is_part(c)).filter(|word| word.starts_with("ryw_")).collect();
    let shows = |name: &str| {
        let mut rests = text.lines().filter_map(|line| line.strip_prefix(name));
        rests.any(|rest| rest.starts_with(['{', ' ']))
    };
    // Those of a store that instances share are not there without one, nor is a wait before somebody has waited. The code
    // has them all the same, under these very names.
    let declared = declared();
    let is_there = |name: &&&str| {
        let instrument = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let is_later =
            ["ryw_outbox_", "ryw_store_", "ryw_quorum_", "ryw_wait_seconds"].iter().any(|of| name.starts_with(of));
        shows(name)
            || is_later
                && (declared.contains(&format!("\"{instrument}\"")) || declared.contains(&format!("\"{name}\"")))
    };
    let missing: Vec<_> = asked.iter().filter(|name| !is_there(name)).collect();
    assert!(asked.len() > 12 && missing.is_empty(), "{missing:?} of\n{text}");
}
