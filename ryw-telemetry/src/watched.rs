//! What is looked at whenever metrics are collected. A layer that is gone has no values any more.

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};
use tower_ryw::{RywLayer, StoreHealth, WeakRywLayer, topology::NodeView};

pub(crate) fn watch(meter: &Meter, layer: &RywLayer) {
    gauge(meter, layer, "ryw_sessions_active", "Subjects with a mark", |layer| {
        Some(as_f64(count(layer.local_store().len())))
    });
    gauge(
        meter,
        layer,
        "ryw_primary_budget_used",
        "Reads on the primary because no replica was fresh enough",
        |layer| Some(as_f64(count(layer.primary_budget().0))),
    );
    gauge(meter, layer, "ryw_primary_budget_limit", "How many of them there may be", |layer| {
        Some(as_f64(count(layer.primary_budget().1)))
    });
    if layer.topology().is_some() {
        nodes(meter, layer);
    }
    if layer.store_health().is_some() {
        store(meter, layer);
    }
}

/// A gauge that has one value, or none.
fn gauge(
    meter: &Meter,
    layer: &RywLayer,
    name: &'static str,
    what: &'static str,
    value: impl Fn(&RywLayer) -> Option<f64> + Send + Sync + 'static,
) {
    let layer: WeakRywLayer = layer.downgrade();
    let observe = move |to: &dyn AsyncInstrument<f64>| {
        if let Some(value) = layer.upgrade().as_ref().and_then(&value) {
            to.observe(value, &[]);
        }
    };
    meter.f64_observable_gauge(name).with_description(what).with_callback(observe).build();
}

fn nodes(meter: &Meter, layer: &RywLayer) {
    gauge(meter, layer, "ryw_waiting", "Reads that wait for a replica", |layer| {
        Some(as_f64(count(layer.topology()?.waiting())))
    });
    each(meter, layer, "ryw_node_up", "1, for the state that the node is in", |node, _| {
        Some((1.0, Some(KeyValue::new("state", node.state().word()))))
    });
    each(meter, layer, "ryw_node_epoch", "The epoch that the node is in", |node, _| {
        Some((f64::from(node.applied()?.epoch().get()), None))
    });
    let bytes = "What the primary has written and the node has not applied";
    each(meter, layer, "ryw_replication_lag_bytes", bytes, |node, primary| {
        let behind = primary?.applied()?.offset().saturating_sub(node.applied()?.offset());
        Some((as_f64(behind), None))
    });
    each(meter, layer, "ryw_replication_lag_seconds", "How old what the node shows may be", |node, _| {
        Some((node.fresh_as_of()?.elapsed().as_secs_f64(), None))
    });
    let visible = "From a commit until the node was seen to show it, at most; as of its last reading";
    each(meter, layer, "ryw_commit_to_visible_seconds", visible, |node, _| {
        Some((node.read_at()?.saturating_duration_since(node.fresh_as_of()?).as_secs_f64(), None))
    });
}

/// A gauge that has a value for each node of which there is something to say.
fn each(
    meter: &Meter,
    layer: &RywLayer,
    name: &'static str,
    what: &'static str,
    value: impl Fn(&NodeView, Option<&NodeView>) -> Option<(f64, Option<KeyValue>)> + Send + Sync + 'static,
) {
    let layer = layer.downgrade();
    let observe = move |to: &dyn AsyncInstrument<f64>| {
        let Some(layer) = layer.upgrade() else { return };
        let Some(topology) = layer.topology() else { return };
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
    let of_store = |name: &'static str, what: &'static str, value: fn(&StoreHealth) -> Option<f64>| {
        gauge(meter, layer, name, what, move |layer| value(&layer.store_health()?));
    };
    of_store("ryw_store_available", "Whether the shared store answers", |health| yes(health.away.is_none()));
    of_store("ryw_store_heard_seconds", "How long ago the shared store has last answered", |health| {
        Some(health.heard?.as_secs_f64())
    });
    of_store("ryw_store_away_seconds", "For how long the shared store has not answered, 0 while it does", |health| {
        Some(health.away.unwrap_or_default().as_secs_f64())
    });
    of_store("ryw_outbox_backlog", "Subjects whose marks wait to be delivered", |health| {
        Some(as_f64(count(health.backlog)))
    });
    of_store("ryw_outbox_oldest_seconds", "For how long the oldest of them has waited", |health| {
        Some(health.oldest.unwrap_or_default().as_secs_f64())
    });
    of_store("ryw_outbox_attempts", "Deliveries tried since the store went away", |health| {
        Some(f64::from(health.tries))
    });
    of_store("ryw_outbox_bytes", "The size of the outbox's file", |health| Some(as_f64(health.outbox_bytes)));
    of_store("ryw_outbox_failed", "1 while the outbox's file can't be written", |health| yes(health.outbox_failed));
    of_store(
        "ryw_outbox_full",
        "1 while everybody's marks are unknown because something could not be kept",
        |health| yes(health.full),
    );
    let of = layer.downgrade();
    let dropped =
        meter.u64_observable_counter("ryw_outbox_dropped_total").with_description("Subjects whose marks were dropped");
    let observe = move |to: &dyn AsyncInstrument<u64>| {
        if let Some(health) = of.upgrade().as_ref().and_then(RywLayer::store_health) {
            to.observe(health.dropped, &[]);
        }
    };
    dropped.with_callback(observe).build();
}

const fn yes(is: bool) -> Option<f64> {
    Some(if is { 1.0 } else { 0.0 })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Exact up to 2^53, which is enough for a picture.
#[expect(clippy::cast_precision_loss, reason = "a gauge")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}
