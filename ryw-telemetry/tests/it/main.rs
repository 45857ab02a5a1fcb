//! What a collector sees, as Prometheus text.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use ryw_core::{
    ClusterId, Epoch, Keyring, Loaded, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled,
    Update,
};
use ryw_telemetry::Metrics;
use tower::{Layer, ServiceExt, service_fn};
use tower_ryw::{
    Ladder, LocalStore, RywContext, RywLayer,
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
    let written = r#"ryw_enforcement_count{achieved="true",level="RYW",proven="true",reason="write",route="primary"}"#;
    assert_eq!(collected.value(written), 2.0, "{}", collected.text());
    assert_eq!(collected.value(r#"ryw_read_latency_ms_count{route="primary"}"#), 3.0);
    assert!(collected.value(r#"ryw_read_latency_ms_sum{route="primary"}"#) >= 90.0);
    assert_eq!(collected.value(r#"ryw_marks_recorded_total{kind="written",source="creation"}"#), 2.0);
    assert_eq!(collected.value("ryw_sessions_active"), 1.0);
    assert_eq!(collected.value(r#"ryw_replication_lag_bytes{node="r1"}"#), 30.0);
    assert_eq!(collected.value(r#"ryw_node_up{node="r1",state="replica"}"#), 1.0);
    assert_eq!(collected.value(r#"ryw_node_epoch{node="p"}"#), 1.0);
    assert_eq!(collected.value("ryw_store_available"), 1.0);
    assert_eq!(collected.value("ryw_outbox_backlog"), 0.0);
    assert!(!collected.text().contains("me\""), "nothing of a client's becomes a label");
}

/// What a client sends, and however often it sends something else, is no label.
#[tokio::test(start_paused = true)]
async fn hostile_names_make_no_series() {
    let (provider, collected) = Collected::new();
    let metrics = Metrics::new(&provider.meter("test"));
    let layer = RywLayer::builder()
        .store(metrics.store(LocalStore::new()))
        .signing_keys(Keyring::random().unwrap())
        .observer(metrics.clone())
        .build()
        .unwrap();
    metrics.watch(&layer);
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let status = if request.method() == "PUT" { 409 } else { 200 };
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
    }));
    let send = async |number: u32| {
        let method = match number % 5 {
            0 => "GET".to_owned(),
            1 => "POST".to_owned(),
            2 => "PUT".to_owned(),
            3 => "HEAD".to_owned(),
            _ => format!("M{number}"),
        };
        let level = ["RYW", "EVENTUAL", "STRONG", "nonsense"][number as usize / 5 % 4];
        let request =
            Request::builder().method(&*method).uri(format!("/{number}")).header("x-session-id", format!("s{number}"));
        let request = request.header("x-consistency-level", level).header("ryw-token", format!("forged{number}"));
        drop(service.clone().oneshot(request.body(()).unwrap()).await.unwrap());
    };
    for number in 0..1000 {
        send(number).await;
    }
    let series = || collected.text().lines().filter(|line| !line.starts_with('#')).count();
    let before = series();
    for number in 1000..100_000 {
        send(number).await;
    }
    assert_eq!(series(), before, "{}", collected.text());
    assert!(collected.value("ryw_write_conflicts_total") >= 1.0, "{}", collected.text());
}

/// What was owed and not kept is another series than what somebody made up, in whatever request both meet.
#[tokio::test(start_paused = true)]
async fn a_level_that_nobody_was_owed_is_told_apart() {
    let (provider, collected) = Collected::new();
    let topology = Topology::new();
    let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
    primary.begin().report(Reading::new(Role::Primary, at(70)));
    replica.begin().report(Reading::new(Role::Replica, at(70)));
    let layer = RywLayer::builder()
        .positions(topology)
        .unproven_reads(0)
        .ladder(Ladder::new().primary(false).stale(std::time::Duration::from_secs(9)))
        .observer(Metrics::new(&provider.meter("test")))
        .build()
        .unwrap();
    let end = Arc::new(AtomicU64::new(70));
    let written_at = Arc::clone(&end);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        if request.method() == "POST" {
            RywContext::current().unwrap().mark_written_at(at(written_at.load(Relaxed)));
        }
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    }));
    let newest = Arc::clone(&end);
    tokio::spawn(async move {
        loop {
            primary.next().await.report(Reading::new(Role::Primary, at(newest.load(Relaxed))));
        }
    });
    let send = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.clone().oneshot(request.body(()).unwrap()).await.unwrap()
    };
    let written = send("POST", &[]).await;
    let session = ("ryw-token", written.headers()["ryw-token"].to_str().unwrap());
    let forged = ("ryw-token", "forged");
    let count = |achieved: &str, proven: &str, reason: &str| {
        let labels =
            format!(r#"achieved="{achieved}",level="RYW",proven="{proven}",reason="{reason}",route="replica""#);
        collected.value(&format!("ryw_enforcement_count{{{labels}}}"))
    };
    // Finds out what was written before the layer was made.
    send("GET", &[session]).await;
    send("GET", &[forged]).await;
    send("GET", &[session, forged]).await;
    assert_eq!(count("false", "false", "unknown-marks"), 2.0, "what was owed is kept: {}", collected.text());
    // The replica does not follow.
    end.store(100, Relaxed);
    let written = send("POST", &[session]).await;
    let session = ("ryw-token", written.headers()["ryw-token"].to_str().unwrap());
    send("GET", &[session]).await;
    send("GET", &[session, forged]).await;
    assert_eq!(count("false", "true", "stale-allowed"), 2.0, "{}", collected.text());
    assert_eq!(count("false", "false", "unknown-marks"), 2.0, "{}", collected.text());
}

#[tokio::test(start_paused = true)]
async fn a_layer_is_not_kept_alive() {
    let (provider, collected) = Collected::new();
    let metrics = Metrics::new(&provider.meter("test"));
    let topology = Topology::new();
    let mut primary = topology.add("p");
    primary.begin().report(Reading::new(Role::Primary, at(100)));
    let layer = RywLayer::builder().positions(topology).observer(metrics.clone()).build().unwrap();
    metrics.watch(&layer);
    assert_eq!(collected.value("ryw_sessions_active"), 0.0);
    assert_eq!(collected.value("ryw_primary_budget_limit"), 256.0);
    let weak = layer.downgrade();
    drop(layer);
    assert!(weak.upgrade().is_none());
    assert!(!collected.text().contains("ryw_node_up{"), "{}", collected.text());
}

/// A store that is late is given up, and one that fails says how.
#[derive(Debug)]
struct Bad;

impl ryw_core::MarkStore for Bad {
    fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
        StoreFuture::boxed(std::future::pending())
    }

    fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
        StoreFuture::boxed(async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Err(StoreError::new(StoreErrorKind::Corrupt))
        })
    }

    fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
        StoreFuture::ready(())
    }

    fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_is_measured() {
    let (provider, collected) = Collected::new();
    let metrics = Metrics::new(&provider.meter("test"));
    let layer = RywLayer::builder()
        .store(metrics.store(Bad))
        .signing_keys(Keyring::random().unwrap())
        .observer(metrics.clone())
        .build()
        .unwrap();
    let service =
        layer.layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))));
    for (method, session) in [("POST", "me"), ("GET", "somebody-else")] {
        let request = Request::builder().method(method).header("x-session-id", session).body(()).unwrap();
        drop(service.clone().oneshot(request).await.unwrap());
    }
    assert_eq!(collected.value(r#"ryw_store_latency_seconds_sum{operation="join"}"#), 0.02, "{}", collected.text());
    assert_eq!(collected.value(r#"ryw_store_errors_total{kind="corrupt",operation="join"}"#), 1.0);
    assert_eq!(collected.value(r#"ryw_marks_recorded_total{kind="not-stored",source="creation"}"#), 1.0);
    let told = r#"ryw_enforcement_count{achieved="false",level="RYW",proven="true",reason="write",route="primary"}"#;
    assert_eq!(collected.value(told), 1.0, "as the answer says: {}", collected.text());
    // Its own subject and everybody's.
    assert_eq!(collected.value(r#"ryw_store_errors_total{kind="given-up",operation="load"}"#), 2.0);
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
