//! Whether a layer is well: one verdict, and what it rests on.
//!
//! ```
//! use ryw_console::{Recorder, health::{Status, Thresholds, health, is_ready}};
//! use tower_ryw::RywLayer;
//!
//! # fn main() -> Result<(), tower_ryw::ConfigError> {
//! let recorder = Recorder::new();
//! let layer = RywLayer::builder().observer(recorder.clone()).build()?;
//! assert_eq!(health(&layer, &recorder, &Thresholds::default()).status, Status::Ok);
//! assert!(is_ready(&layer));
//! # Ok(()) }
//! ```

use std::time::Duration;

use serde::{Serialize, Serializer};
use tower_ryw::{
    RywLayer, StoreHealth,
    topology::{NodeState, NodeView},
};

use crate::Recorder;

pub use crate::latency::Percentiles;

/// For how long a loss and a violation count, in seconds.
const RECENT_SECONDS: u64 = 5 * 60;

/// How well something is. The worst finding is the verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    #[default]
    Ok,
    /// It serves, but somebody should look at it.
    Degraded,
    /// Somebody has to act now: requests fail, or soon will, or what stands in for a failure is not there.
    Critical,
}

/// From where on a measure is bad. Both count from the value itself on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit<T> {
    /// From here on it is degraded.
    pub degraded: T,
    /// From here on it is critical.
    pub critical: T,
}

/// The limits of everything that is measured. As JSON they have the names and the units of what they are compared with:
/// `lag_seconds`, `backlog`, `retries`, `p50_ms`, `p95_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Thresholds {
    /// How old what a node shows may be that is not the primary, also one that is down: it stays behind all the same.
    /// Default: 10 s, 30 s.
    #[serde(rename = "lag_seconds", serialize_with = "as_seconds")]
    pub lag: Limit<Duration>,
    /// Subjects whose marks wait to be delivered to the shared store. Default: 50, 100.
    pub backlog: Limit<u64>,
    /// How often delivery was tried in vain since the store went away. Default: 3, 10.
    pub retries: Limit<u64>,
    /// The 95th percentile of reads, and of writes, of the last minute. Default: 1 s, 5 s.
    #[serde(rename = "p95_ms", serialize_with = "as_ms")]
    pub p95: Limit<Duration>,
    /// Their median. Default: 500 ms, 1 s.
    #[serde(rename = "p50_ms", serialize_with = "as_ms")]
    pub p50: Limit<Duration>,
}

impl Default for Thresholds {
    fn default() -> Self {
        let seconds = |degraded, critical| Limit {
            degraded: Duration::from_secs(degraded),
            critical: Duration::from_secs(critical),
        };
        Self {
            lag: seconds(10, 30),
            backlog: Limit { degraded: 50, critical: 100 },
            retries: Limit { degraded: 3, critical: 10 },
            p95: seconds(1, 5),
            p50: Limit { degraded: Duration::from_millis(500), critical: Duration::from_secs(1) },
        }
    }
}

impl<T: PartialOrd + Copy> Limit<T> {
    /// How bad `value` is.
    #[must_use]
    pub fn status(&self, value: T) -> Status {
        if value >= self.critical {
            Status::Critical
        } else if value >= self.degraded {
            Status::Degraded
        } else {
            Status::Ok
        }
    }
}

/// The verdict, and what it rests on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The worst of the findings; ok without any.
    pub status: Status,
    /// Whether the layer does anything: one that is switched off promises nothing to anybody.
    pub enforced: bool,
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
    /// The nodes, in the order in which they were added; none where no positions are known.
    pub nodes: Vec<Node>,
    /// Reads that were answered in the last minute.
    pub reads: Option<Percentiles>,
    /// Writes that were answered in the last minute.
    pub writes: Option<Percentiles>,
    /// What it was judged by.
    pub thresholds: Thresholds,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub status: Status,
    /// Which check found it: `enforcement`, `primary`, `node`, `lag`, `store`, `backlog`, `retries`, `outbox`, `latency`, `loss` or `violation`.
    pub check: &'static str,
    /// The node that it is about.
    pub node: Option<String>,
    /// In words, for people.
    pub text: String,
}

/// One node, as last read.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Node {
    /// The name that it was given.
    pub name: String,
    /// `unseen`, `primary`, `replica`, `down`, `ejected` or `fenced`.
    pub state: &'static str,
    /// The epoch that it is in.
    pub epoch: Option<u32>,
    /// What it has applied, in the units of the log (bytes in PostgreSQL).
    pub position: Option<u64>,
    /// What the primary has written and it has not applied, in the same units.
    pub lag: Option<u64>,
    /// How old what it shows may be, in seconds.
    pub lag_seconds: Option<f64>,
    /// When it last answered, in ms before now.
    pub last_seen_ms: Option<u64>,
    /// Uses under way in this process.
    pub load: usize,
    /// How bad its state and lag are.
    pub status: Status,
}

/// Looks at a layer.
#[must_use]
pub fn health(layer: &RywLayer, recorder: &Recorder, thresholds: &Thresholds) -> Health {
    let mut found = Findings::default();
    let enforced = layer.is_enabled();
    if !enforced {
        found.add(Status::Degraded, "enforcement", || {
            "Enforcement is switched off: no session is promised that it sees its own writes.".to_owned()
        });
    }
    let nodes = nodes(layer, recorder, thresholds, &mut found);
    if let Some(store) = layer.store_health() {
        judge_store(&store, thresholds, &mut found);
    }
    let (reads, writes) = (recorder.reads(), recorder.writes());
    for (what, measured) in [("reads", reads), ("writes", writes)] {
        judge_latency(what, measured, thresholds, &mut found);
    }
    let recent = recorder.sum(RECENT_SECONDS);
    let violations = recent.violations;
    if violations > 0 {
        found.add(Status::Critical, "violation", || {
            format!("{violations} spot checks of the last 5 minutes prove that a replica showed a session less than it had to see.")
        });
    }
    let told = recent.lost_told;
    if told > 0 {
        // The instance itself is well.
        found.add(Status::Degraded, "loss", || {
            format!("{told} answers in the last 5 minutes told their sessions that acknowledged work did not survive a failover.")
        });
    }
    let mut findings = found.0;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.status));
    let status = findings.first().map_or(Status::Ok, |finding| finding.status);
    Health { status, enforced, findings, nodes, reads, writes, thresholds: thresholds.clone() }
}

/// Whether some request could be served: by a primary or a replica. Always, where no positions are known.
#[must_use]
pub fn is_ready(layer: &RywLayer) -> bool {
    let serves = |node: &NodeView| matches!(node.state(), NodeState::Primary | NodeState::Replica);
    layer.topology().is_none_or(|topology| topology.view().nodes().iter().any(serves))
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, status: Status, check: &'static str, text: impl FnOnce() -> String) {
        if status > Status::Ok {
            self.0.push(Finding { status, check, node: None, text: text() });
        }
    }

    fn add_of(&mut self, node: &NodeView, status: Status, check: &'static str, text: impl FnOnce() -> String) {
        if status > Status::Ok {
            self.0.push(Finding { status, check, node: Some(node.name().as_str().to_owned()), text: text() });
        }
    }
}

fn nodes(layer: &RywLayer, recorder: &Recorder, thresholds: &Thresholds, found: &mut Findings) -> Vec<Node> {
    let Some(topology) = layer.topology() else { return Vec::new() };
    let view = topology.view();
    if view.primary().is_none() {
        found.add(Status::Critical, "primary", || "No primary is known: writes fail.".to_owned());
    }
    let end = view.primary().and_then(NodeView::applied);
    let node = |node: &NodeView| {
        let age = node.fresh_as_of().map(|since| since.elapsed());
        // Of what has never answered, or not since a failover, that is all there is to know.
        let silent = node.read_at().map_or_else(|| recorder.uptime(), |at| at.elapsed());
        let status = judge_node(node, age, silent, thresholds, found);
        Node {
            name: node.name().as_str().to_owned(),
            state: node.state().word(),
            epoch: node.applied().map(|position| position.epoch().get()),
            position: node.applied().map(|position| position.offset()),
            lag: node.applied().zip(end).map(|(applied, end)| end.offset().saturating_sub(applied.offset())),
            lag_seconds: age.map(|age| age.as_secs_f64()),
            last_seen_ms: node.read_at().map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            load: node.load(),
            status,
        }
    };
    view.nodes().iter().map(node).collect()
}

fn judge_node(
    node: &NodeView,
    age: Option<Duration>,
    silent: Duration,
    thresholds: &Thresholds,
    found: &mut Findings,
) -> Status {
    let name = node.name();
    if node.state() == NodeState::Primary {
        return Status::Ok;
    }
    let out = match node.state() {
        NodeState::Replica => None,
        NodeState::Down => Some(format!("{name} is down: it did not answer when it was last asked.")),
        NodeState::Ejected => Some(format!("{name} is ejected: it answers, but those who used it have failed.")),
        NodeState::Fenced => Some(format!(
            "{name} is fenced: it belongs to another cluster or to a history that has ended, and must be rebuilt."
        )),
        _ => Some(format!("{name} has not been read yet.")),
    };
    let out_of_service = if out.is_some() { Status::Degraded } else { Status::Ok };
    found.add_of(node, out_of_service, "node", || out.unwrap_or_default());
    // Whoever is out of service falls behind no less.
    let lag = match (node.state(), age) {
        (NodeState::Replica, None) => Status::Critical,
        (_, age) => thresholds.lag.status(age.unwrap_or(silent)),
    };
    found.add_of(node, lag, "lag", || match (node.state(), age) {
        (_, Some(age)) => format!("What {name} shows is {} s old.", age.as_secs()),
        (NodeState::Replica, None) => format!("How old what {name} shows is, is not known."),
        (_, None) => format!("{name} has not answered for {} s.", silent.as_secs()),
    });
    out_of_service.max(lag)
}

fn judge_store(store: &StoreHealth, thresholds: &Thresholds, found: &mut Findings) {
    if let Some(away) = store.away {
        found.add(Status::Degraded, "store", || {
            format!("The shared mark store has not answered for {} s.", away.as_secs())
        });
        let tries = store.tries;
        found.add(thresholds.retries.status(tries.into()), "retries", || {
            format!("The shared mark store was tried {tries} times in vain.")
        });
    }
    let backlog = store.backlog;
    found.add(thresholds.backlog.status(backlog as u64), "backlog", || {
        format!("The marks of {backlog} subjects wait to be delivered to the shared store.")
    });
    if store.full {
        found.add(Status::Degraded, "backlog", || {
            "Some marks could not be kept. Until the shared store knows, everybody's are unknown.".to_owned()
        });
    }
    if store.outbox_failed {
        found.add(Status::Degraded, "outbox", || {
            "The outbox could not be written: marks that wait are kept in memory only.".to_owned()
        });
    }
}

fn judge_latency(what: &'static str, measured: Option<Percentiles>, thresholds: &Thresholds, found: &mut Findings) {
    let Some(Percentiles { p50_ms, p95_ms, .. }) = measured else { return };
    let of = |ms: f64| Duration::from_secs_f64(ms / 1e3);
    let worst = thresholds.p50.status(of(p50_ms)).max(thresholds.p95.status(of(p95_ms)));
    found.add(worst, "latency", || {
        format!("Of the {what} of the last minute, half took up to {p50_ms:.0} ms and 95 % up to {p95_ms:.0} ms.")
    });
}

fn as_seconds<S: Serializer>(limit: &Limit<Duration>, to: S) -> Result<S::Ok, S::Error> {
    Limit { degraded: limit.degraded.as_secs_f64(), critical: limit.critical.as_secs_f64() }.serialize(to)
}

fn as_ms<S: Serializer>(limit: &Limit<Duration>, to: S) -> Result<S::Ok, S::Error> {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Limit { degraded: ms(limit.degraded), critical: ms(limit.critical) }.serialize(to)
}
