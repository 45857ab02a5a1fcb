//! What operators see: shapes that tools rely on, counters that grow, and nothing that belongs to a session.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::{gateway::Gateway, program::command};

const NOTE: &str = "/v1/memory/acme/note";
const STATS: &str = "/api/admin/read-after-write/stats";

async fn json(gateway: &Gateway, path: &str) -> Value {
    let reply = gateway.get(path, &[]).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

/// Two writes and three reads of two sessions; returns a token.
async fn traffic(gateway: &Gateway) -> String {
    let token = gateway.put(NOTE, &[], "one").await.header("ryw-token").unwrap().to_owned();
    gateway.put(NOTE, &[("x-session-id", "me")], "two").await;
    for level in ["RYW", "EVENTUAL", "STRONG"] {
        gateway.get(NOTE, &[("x-session-id", "me"), ("x-consistency-level", level)]).await;
    }
    token
}

#[tokio::test]
async fn health_tells_each_node() {
    let gateway = Gateway::start(&["--replicas", "3"]).await;
    traffic(&gateway).await;
    let health = json(&gateway, "/v1/health").await;
    assert_eq!((&health["status"], &health["store"]["kind"]), (&"ok".into(), &"local".into()), "{health}");
    assert_eq!(health["store"]["marks"], 2, "{health}");
    let nodes = health["nodes"].as_array().unwrap();
    let states: BTreeMap<_, _> =
        nodes.iter().map(|node| (node["name"].as_str().unwrap(), node["state"].as_str().unwrap())).collect();
    let replicas = ["r1", "r2", "r3"].map(|name| (name, "replica"));
    assert_eq!(states, replicas.into_iter().chain([("primary", "primary")]).collect());
    for node in nodes {
        for number in ["epoch", "position", "lag", "last_seen_ms"] {
            assert!(node[number].is_u64(), "{number} of {node}");
        }
        assert!(node["lag_seconds"].is_number(), "{node}");
    }
    for (kind, count) in [("reads", 3), ("writes", 2)] {
        let measured = &health[kind];
        assert_eq!(measured["count"], count, "{health}");
        let [p50, p95] = ["p50_ms", "p95_ms"].map(|name| measured[name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p95, "{health}");
    }
    let limits =
        |name: &str| (health["thresholds"][name]["degraded"].as_f64(), health["thresholds"][name]["critical"].as_f64());
    let expected = [
        ("lag_seconds", 10.0, 30.0),
        ("backlog", 50.0, 100.0),
        ("retries", 3.0, 10.0),
        ("p50_ms", 500.0, 1000.0),
        ("p95_ms", 1000.0, 5000.0),
    ];
    for (name, degraded, critical) in expected {
        assert_eq!(limits(name), (Some(degraded), Some(critical)), "{name} of {health}");
    }
    assert_eq!((&health["findings"], &health["enforced"]), (&serde_json::json!([]), &true.into()));
}

#[tokio::test]
async fn health_says_that_nothing_is_enforced() {
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    command.env("ENABLE_CONSISTENCY_ENFORCEMENT", "false");
    let gateway = Gateway::from(command).await;
    let health = json(&gateway, "/v1/health").await;
    assert_eq!((&health["status"], &health["enforced"]), (&"degraded".into(), &false.into()), "{health}");
    assert_eq!(health["findings"][0]["check"], "enforcement", "{health}");
}

/// A gate that is right is found to be: with as many replicas that lag, and some sessions that write and read.
#[tokio::test]
async fn spot_checks_are_made_where_they_were_asked_for() {
    let gateway = Gateway::start(&["--lag-ms", "1", "--spot-check-one-in", "1"]).await;
    let headers = [("x-session-id", "me"), ("x-consistency-level", "RYW")];
    gateway.put(NOTE, &headers, "one").await;
    let checked = async || {
        gateway.get(NOTE, &headers).await;
        let stats = json(&gateway, STATS).await;
        (stats["spotChecks"]["agreed"].as_u64().unwrap(), stats["spotChecks"]["violation"].as_u64().unwrap())
    };
    tokio::time::timeout(crate::program::DEADLINE, async {
        while checked().await.0 < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("reads are checked");
    assert_eq!(checked().await.1, 0);
    let metrics = gateway.get("/metrics", &[]).await.text();
    assert!(metrics.contains("\nryw_violations_total 0\n"), "{metrics}");
}

/// Values by name and labels, of a text in which every line has to make sense.
fn parse(text: &str) -> HashMap<String, f64> {
    let name_is_valid = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
    };
    let (mut types, mut values) = (HashMap::new(), HashMap::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some_and(|(name, help)| name_is_valid(name) && !help.is_empty()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert!(types.insert(name, kind).is_none(), "told twice: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_typed = types.contains_key(name) || of_histogram.is_some_and(|name| types[name] == "histogram");
            assert!(is_typed, "no type: {line}");
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').unwrap();
                assert!(name_is_valid(label) && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
            assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "told twice: {line}");
        }
    }
    assert!(text.ends_with('\n'));
    values
}

fn routed(level: &str, reason: &str, route: &str) -> String {
    format!(
        "ryw_enforcement_count{{achieved=\"true\",level=\"{level}\",proven=\"true\",reason=\"{reason}\",route=\"{route}\"}}"
    )
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_grow() {
    let gateway = Gateway::start(&["--lag-ms", "60000"]).await;
    traffic(&gateway).await;
    let reply = gateway.get("/metrics", &[]).await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4"));
    let once = parse(&reply.text());
    for (series, expected) in [
        ("ryw_sessions_active", 2.0),
        ("ryw_marks_recorded_total{kind=\"written\",source=\"update\"}", 2.0),
        (r#"ryw_tokens_refused_total{kind="malformed"}"#, 0.0),
        (r#"ryw_refused_total{reason="invalid"}"#, 0.0),
        ("ryw_read_latency_ms_count{route=\"primary\"}", 2.0),
        ("ryw_read_latency_ms_count{route=\"replica\"}", 1.0),
        (&routed("EVENTUAL", "write", "primary"), 2.0),
        (&routed("STRONG", "strong", "primary"), 1.0),
        (&routed("RYW", "behind", "primary"), 1.0),
        (&routed("EVENTUAL", "stale-allowed", "replica"), 1.0),
    ] {
        assert_eq!(once.get(series), Some(&expected), "{series} of {once:?}");
    }
    traffic(&gateway).await;
    let twice = parse(&gateway.get("/metrics", &[]).await.text());
    let counts = || once.iter().filter(|(series, _)| series.starts_with("ryw_enforcement_count"));
    assert!(
        counts().count() >= 4 && counts().all(|(series, value)| twice[series] == 2.0 * value),
        "{once:?} {twice:?}"
    );
}

#[tokio::test]
async fn statistics_tell_sums_and_nobodys_marks() {
    let gateway = Gateway::start(&["--lag-ms", "60000"]).await;
    let token = traffic(&gateway).await;
    let stats = json(&gateway, STATS).await;
    let marks = &stats["readAfterWriteStats"];
    assert_eq!(marks["totalEntries"], 2, "{stats}");
    let sources = serde_json::json!({ "creation": 0, "update": 2, "manual": 0 });
    assert_eq!(marks["entriesBySource"], sources, "{stats}");
    let (oldest, mean) = (marks["oldestEntryAge"].as_f64().unwrap(), marks["averageAge"].as_f64().unwrap());
    assert!(mean >= 0.0 && oldest >= mean, "{stats}");
    let requests = stats["requests"].as_array().unwrap();
    let count: u64 = requests.iter().map(|request| request["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 5, "{stats}");
    for request in requests {
        let fields: Vec<_> = request.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["count", "reason", "route"], "{stats}");
    }
    let timestamp = stats["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.starts_with("20") && timestamp.ends_with('Z'), "{stats}");
    let system = &stats["systemInfo"];
    assert!(system["uptime"].is_u64() && system["memoryUsage"]["rss"].is_u64(), "{stats}");
    assert_eq!((&system["platform"], &system["version"]), (&"linux".into(), &env!("CARGO_PKG_VERSION").into()));
    let text = stats.to_string();
    for secret in [&*token, "position", "token", "session"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
