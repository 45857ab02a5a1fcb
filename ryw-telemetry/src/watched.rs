//! What is looked at whenever metrics are collected.

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};
use tower_ryw::{RywLayer, StoreHealth, Topology, topology::NodeView};

pub(crate) fn watch(meter: &Meter, layer: &RywLayer) {
    let of = layer.clone();
    let refused =
        meter.u64_observable_counter("ryw_refused_total").with_description("Requests that the layer has refused");
    refused.with_callback(move |to| to.observe(of.stats().snapshot().refused, &[])).build();
    let of = layer.clone();
    let sessions = meter.u64_observable_gauge("ryw_sessions_active").with_description("Subjects with a mark");
    sessions.with_callback(move |to| to.observe(count(of.local_store().len()), &[])).build();
    if let Some(topology) = layer.topology() {
        nodes(meter, topology);
    }
    if layer.store_health().is_some() {
        store(meter, layer);
    }
}

fn nodes(meter: &Meter, topology: &Topology) {
    let of = topology.clone();
    let waiting = meter.u64_observable_gauge("ryw_waiting").with_description("Reads that wait for a replica");
    waiting.with_callback(move |to| to.observe(count(of.waiting()), &[])).build();
    each(meter, topology, "ryw_node_up", "1, for the state that the node is in", |node, _| {
        Some((1.0, Some(KeyValue::new("state", node.state().word()))))
    });
    each(meter, topology, "ryw_node_epoch", "The epoch that the node is in", |node, _| {
        Some((f64::from(node.applied()?.epoch().get()), None))
    });
    let bytes = "What the primary has written and the node has not applied";
    each(meter, topology, "ryw_replication_lag_bytes", bytes, |node, primary| {
        let behind = primary?.applied()?.offset().saturating_sub(node.applied()?.offset());
        Some((as_f64(behind), None))
    });
    each(meter, topology, "ryw_replication_lag_seconds", "How old what the node shows may be", |node, _| {
        Some((node.fresh_as_of()?.elapsed().as_secs_f64(), None))
    });
}

/// A gauge that has a value for each node of which there is something to say.
fn each(
    meter: &Meter,
    topology: &Topology,
    name: &'static str,
    what: &'static str,
    value: impl Fn(&NodeView, Option<&NodeView>) -> Option<(f64, Option<KeyValue>)> + Send + Sync + 'static,
) {
    let topology = topology.clone();
    let observe = move |to: &dyn AsyncInstrument<f64>| {
        let view = topology.view();
        for node in view.nodes() {
            if let Some((value, label)) = value(node, view.primary()) {
                let name = KeyValue::new("node", node.name().as_str().to_owned());
                let labels: Vec<_> = std::iter::once(name).chain(label).collect();
                to.observe(value, &labels);
            }
        }
    };
    meter.f64_observable_gauge(name).with_description(what).with_callback(observe).build();
}

fn store(meter: &Meter, layer: &RywLayer) {
    let gauge = |name: &'static str, what: &'static str, value: fn(&StoreHealth) -> f64| {
        let layer = layer.clone();
        let observe = move |to: &dyn AsyncInstrument<f64>| {
            if let Some(health) = layer.store_health() {
                to.observe(value(&health), &[]);
            }
        };
        meter.f64_observable_gauge(name).with_description(what).with_callback(observe).build();
    };
    gauge("ryw_store_available", "Whether the shared store answers", |health| {
        f64::from(u8::from(health.away.is_none()))
    });
    gauge("ryw_outbox_backlog", "Subjects whose marks wait to be delivered", |health| as_f64(count(health.backlog)));
    gauge("ryw_outbox_oldest_seconds", "For how long the oldest of them has waited", |health| {
        health.oldest.unwrap_or_default().as_secs_f64()
    });
    gauge("ryw_outbox_attempts", "Deliveries tried since the store went away", |health| f64::from(health.tries));
    gauge("ryw_outbox_bytes", "The size of the outbox's file", |health| as_f64(health.outbox_bytes));
    gauge("ryw_outbox_failed", "1 while the outbox's file can't be written", |health| {
        f64::from(u8::from(health.outbox_failed))
    });
    gauge("ryw_outbox_full", "1 while everybody's marks are unknown because something could not be kept", |health| {
        f64::from(u8::from(health.full))
    });
    let of = layer.clone();
    let dropped =
        meter.u64_observable_counter("ryw_outbox_dropped_total").with_description("Subjects whose marks were dropped");
    let observe =
        move |to: &dyn AsyncInstrument<u64>| to.observe(of.store_health().map_or(0, |health| health.dropped), &[]);
    dropped.with_callback(observe).build();
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Exact up to 2^53, which is enough for a picture.
#[expect(clippy::cast_precision_loss, reason = "a gauge")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}
