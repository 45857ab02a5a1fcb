//! What happens, counted as it happens.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};
use ryw_core::{Lost, MarkStore, TokenError};
use tower_ryw::{Checked, Observe, Recorded, Refused, Routed, RywLayer, Source, SpotCheck};

use crate::{store::MeasuredStore, watched};

/// From what is answered from memory to what has waited for as long as it may.
const MILLISECONDS: [f64; 14] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0];
/// The same.
const SECONDS: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The instruments. Give a clone to [`RywLayerBuilder::observer`](tower_ryw::RywLayerBuilder::observer). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    meter: Meter,
    enforcement: Counter<u64>,
    read_latency: Histogram<f64>,
    waits: Histogram<f64>,
    recorded: Counter<u64>,
    tokens_refused: Counter<u64>,
    lost_told: Counter<u64>,
    refused: Counter<u64>,
    conflicts: Counter<u64>,
    checks: Counter<u64>,
    violations: Counter<u64>,
    store_latency: Histogram<f64>,
    store_errors: Counter<u64>,
}

impl Metrics {
    /// Instruments of this meter.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        let histogram = |name, boundaries: [f64; 14], what| {
            meter.f64_histogram(name).with_description(what).with_boundaries(boundaries.to_vec()).build()
        };
        let metrics = Self {
            meter: meter.clone(),
            enforcement: counter("ryw_enforcement_count", "Requests that were given a route"),
            read_latency: histogram("ryw_read_latency_ms", MILLISECONDS, "From a read's arrival to its answer, in ms"),
            waits: histogram("ryw_wait_seconds", SECONDS, "How long reads have waited for a replica"),
            recorded: counter("ryw_marks_recorded_total", "Marks by what they stand for and what made them"),
            tokens_refused: counter("ryw_tokens_refused_total", "Tokens that were not believed"),
            lost_told: counter("ryw_lost_told_total", "Answers that told of a lost write"),
            refused: counter("ryw_refused_total", "Requests that the layer has refused"),
            conflicts: counter("ryw_write_conflicts_total", "Writes turned down because somebody had written first"),
            checks: counter("ryw_spot_checks_total", "Reads that were compared with the primary"),
            violations: counter("ryw_violations_total", "Reads that did not show what their session had to see"),
            store_latency: histogram("ryw_store_latency_seconds", SECONDS, "From asking the mark store to its answer"),
            store_errors: counter("ryw_store_errors_total", "Answers that the mark store did not give"),
        };
        // What has not happened yet is 0, and not absent: a rate needs a first value.
        let Self { lost_told, conflicts, violations, .. } = &metrics;
        [lost_told, conflicts, violations].into_iter().for_each(|counter| counter.add(0, &[]));
        metrics.checks.add(0, &[KeyValue::new("found", Checked::Agreed.word())]);
        metrics.refused.add(0, &[KeyValue::new("reason", Refused::Invalid.word())]);
        metrics.tokens_refused.add(0, &[KeyValue::new("kind", token_word(TokenError::Malformed))]);
        metrics
    }

    /// Looks at this layer whenever metrics are collected: its marks, its nodes, the store that it shares. Call it once for
    /// each layer. It does not keep the layer alive.
    pub fn watch(&self, layer: &RywLayer) {
        watched::watch(&self.meter, layer);
    }
}

impl Metrics {
    /// The same store, measured: how long it takes, and how it fails. Give it to
    /// [`RywLayerBuilder::store`](tower_ryw::RywLayerBuilder::store) in its place.
    #[must_use]
    pub fn store<S: MarkStore>(&self, store: S) -> MeasuredStore<S> {
        MeasuredStore::new(store, self.store_latency.clone(), self.store_errors.clone())
    }
}

/// The word for a token's fault in metrics.
const fn token_word(error: TokenError) -> &'static str {
    match error {
        TokenError::TooLong => "too-long",
        TokenError::Malformed => "malformed",
        TokenError::UnsupportedVersion => "unsupported-version",
        TokenError::BadSignature => "bad-signature",
        TokenError::OtherTenant => "other-tenant",
        _ => "other",
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl Observe for Metrics {
    fn routed(&self, event: &Routed<'_>) {
        self.enforcement.add(
            1,
            &[
                KeyValue::new("route", event.route()),
                KeyValue::new("reason", event.reason.word()),
                KeyValue::new("level", event.level.word()),
                KeyValue::new("achieved", event.achieved),
                KeyValue::new("proven", event.proven),
            ],
        );
        if event.read {
            self.read_latency.record(ms(event.took), &[KeyValue::new("route", event.route())]);
        }
        if !event.waited.is_zero() {
            self.waits.record(event.waited.as_secs_f64(), &[]);
        }
    }

    fn recorded(&self, event: Recorded, source: Source) {
        self.recorded.add(1, &[KeyValue::new("kind", event.word()), KeyValue::new("source", source.word())]);
    }

    fn token_refused(&self, error: TokenError) {
        self.tokens_refused.add(1, &[KeyValue::new("kind", token_word(error))]);
    }

    fn lost_told(&self, _lost: Lost) {
        self.lost_told.add(1, &[]);
    }

    fn refused(&self, why: Refused) {
        self.refused.add(1, &[KeyValue::new("reason", why.word())]);
    }

    fn conflicted(&self) {
        self.conflicts.add(1, &[]);
    }

    fn checked(&self, event: &SpotCheck<'_>) {
        self.checks.add(1, &[KeyValue::new("found", event.found.word())]);
        if event.found == Checked::Violation {
            self.violations.add(1, &[]);
        }
    }
}
