//! What a collector sees, as Prometheus text.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use ryw_core::{ClusterId, Epoch, Keyring, Position};
use ryw_telemetry::Metrics;
use tower::{Layer, ServiceExt, service_fn};
use tower_ryw::{
    LocalStore, RywLayer,
    topology::{Reading, Role, Topology},
};

struct Collected(Registry);

impl Collected {
    fn new() -> (SdkMeterProvider, Self) {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
        let exporter = exporter.without_units().without_counter_suffixes().without_target_info();
        let exporter = exporter.scope_info_enabled(false).build().unwrap();
        (SdkMeterProvider::builder().with_reader(exporter).build(), Self(registry))
    }

    fn text(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// The value of the line that starts so.
    fn value(&self, start: &str) -> f64 {
        let text = self.text();
        let value = text.lines().find_map(|line| line.strip_prefix(start)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {start} in\n{text}"))
    }
}

fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

#[tokio::test(start_paused = true)]
async fn requests_nodes_and_the_store_are_seen() {
    let (provider, collected) = Collected::new();
    let topology = Topology::new();
    let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
    primary.begin().report(Reading::new(Role::Primary, at(100)));
    replica.begin().report(Reading::new(Role::Replica, at(70)));
    let metrics = Metrics::new(&provider.meter("test"));
    let layer = RywLayer::builder()
        .positions(topology)
        .store(LocalStore::new())
        .signing_keys(Keyring::random().unwrap())
        .observer(metrics.clone())
        .build()
        .unwrap();
    metrics.watch(&layer);
    let service = layer.layer(service_fn(async |_: Request<()>| {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    for (method, count) in [("POST", 2), ("GET", 3)] {
        for _ in 0..count {
            let request = Request::builder().method(method).header("x-session-id", "me").body(()).unwrap();
            let reading = async {
                // Whoever asks for the position that was committed is answered by the next reading.
                loop {
                    primary.next().await.report(Reading::new(Role::Primary, at(100)));
                }
            };
            tokio::select! {
                answer = service.clone().oneshot(request) => drop(answer.unwrap()),
                () = reading => {}
            }
        }
    }
    let written = r#"ryw_enforcement_count{achieved="true",level="RYW",reason="write",route="primary"}"#;
    assert_eq!(collected.value(written), 2.0, "{}", collected.text());
    assert_eq!(collected.value(r#"ryw_read_latency_ms_count{route="primary"}"#), 3.0);
    assert!(collected.value(r#"ryw_read_latency_ms_sum{route="primary"}"#) >= 90.0);
    assert_eq!(collected.value(r#"ryw_marks_recorded_total{kind="written"}"#), 2.0);
    assert_eq!(collected.value("ryw_sessions_active"), 1.0);
    assert_eq!(collected.value(r#"ryw_replication_lag_bytes{node="r1"}"#), 30.0);
    assert_eq!(collected.value(r#"ryw_node_up{node="r1",state="replica"}"#), 1.0);
    assert_eq!(collected.value(r#"ryw_node_epoch{node="p"}"#), 1.0);
    assert_eq!(collected.value("ryw_store_available"), 1.0);
    assert_eq!(collected.value("ryw_outbox_backlog"), 0.0);
    assert!(!collected.text().contains("me\""), "nothing of a client's becomes a label");
}

/// Every name that the documentation lists is there, and no other.
#[tokio::test(start_paused = true)]
async fn the_table_is_complete() {
    let source = include_str!("../../src/lib.rs");
    let row = |line: &'static str| line.strip_prefix("//! | `")?.split('`').next();
    let listed: Vec<_> = source.lines().filter_map(row).collect();
    let instruments = concat!(include_str!("../../src/counted.rs"), include_str!("../../src/watched.rs"));
    let built: Vec<_> = instruments.split('"').filter(|word| word.starts_with("ryw_")).collect();
    assert!(listed.len() >= 18 && listed.iter().all(|name| built.contains(name)), "{listed:?}\n{built:?}");
    assert!(built.iter().all(|name| listed.contains(name)), "{listed:?}\n{built:?}");
}
