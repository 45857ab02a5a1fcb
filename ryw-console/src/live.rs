//! All that the page shows at one moment, but for decisions.

use ryw_core::Reason;
use serde::Serialize;
use tower_ryw::{Checked, RywLayer, StatsSnapshot, StoreHealth};

use crate::{
    Recorder,
    decisions::{Kept, SessionSum},
    health::{self, Health, Node, Thresholds},
    meaning::{family, meaning},
    series::{Bar, SECONDS, Seen},
};

/// Width of the bars, in seconds, for each span that the chart can show.
const SPANS: [(u64, u64); 3] = [(60, 1), (300, 5), (SECONDS, 15)];
/// Sessions that are listed.
const SESSIONS: usize = 10;

#[derive(Debug, Serialize)]
pub(crate) struct Live {
    now_ms: u64,
    uptime_seconds: u64,
    epoch: Option<u32>,
    health: Health,
    routing: Routing,
    sessions: Sessions,
    decisions: Kept,
    store: Option<Store>,
    losses: Losses,
    checks: Checks,
}

/// Requests by route and reason.
#[derive(Debug, Serialize)]
pub(crate) struct Routing {
    /// What the numbers without `total` cover.
    seconds: u64,
    reads_by_replicas: u64,
    reads_by_primary: u64,
    writes: u64,
    /// Requests that did not get what their level promises, and were told so.
    unachieved: u32,
    /// Reads that were served as if they had brought no token: nobody believes what they brought, so nothing was promised.
    unproven: u32,
    refused_total: u64,
    reasons: Vec<Explained>,
    /// Bars for one, five and fifteen minutes, oldest first.
    spans: Vec<Span>,
}

#[derive(Debug, Serialize)]
struct Span {
    seconds: u64,
    width: u64,
    bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
struct Explained {
    reason: &'static str,
    meaning: &'static str,
    family: &'static str,
    replica: u32,
    primary: u32,
    replica_total: u64,
    primary_total: u64,
}

#[derive(Debug, Serialize)]
struct Sessions {
    /// Subjects with a mark in this process.
    marks: usize,
    oldest_seconds: Option<f64>,
    mean_seconds: Option<f64>,
    /// Reads that wait for a replica.
    waiting: usize,
    busiest: Vec<SessionSum>,
}

#[derive(Debug, Serialize)]
struct Store {
    away_seconds: Option<f64>,
    /// Since it last answered.
    heard_seconds: Option<f64>,
    tries: u32,
    backlog: usize,
    oldest_seconds: Option<f64>,
    dropped: u64,
    full: bool,
    outbox_bytes: u64,
    outbox_failed: bool,
}

/// Reads that were made again on the primary, since the process was started.
#[derive(Debug, Serialize)]
struct Checks {
    /// Violations of the last 15 minutes.
    violations: u32,
    violations_total: u64,
    /// Those that have decided something: the primary answered the same, or it was a violation.
    decided_total: u64,
    all_total: u64,
}

/// What was lost, or may have been.
#[derive(Debug, Serialize)]
struct Losses {
    /// Answers that told of a loss, in the last 15 minutes.
    told: u32,
    told_total: u64,
    unknown_outcomes: u32,
    unknown_outcomes_total: u64,
    /// Marks without a position, or not in the store.
    degraded_marks_total: u64,
    /// Marks that were dropped on their way to the shared store.
    dropped_total: u64,
    tokens_refused_total: u64,
    unproven_total: u64,
}

pub(crate) fn live(layer: &RywLayer, recorder: &Recorder, thresholds: &Thresholds) -> Live {
    let (stats, seen) = (layer.stats().snapshot(), recorder.sum(SECONDS));
    let ages = layer.local_store().ages();
    let store = layer.store_health();
    Live {
        now_ms: u64::try_from(recorder.now().as_millis()).unwrap_or(u64::MAX),
        uptime_seconds: recorder.uptime().as_secs(),
        epoch: layer.topology().and_then(|topology| topology.view().epoch()).map(ryw_core::Epoch::get),
        health: health::health(layer, recorder, thresholds),
        routing: of(&stats, &seen, recorder),
        sessions: Sessions {
            marks: layer.local_store().len(),
            oldest_seconds: ages.map(|(oldest, _)| oldest.as_secs_f64()),
            mean_seconds: ages.map(|(_, mean)| mean.as_secs_f64()),
            waiting: layer.topology().map_or(0, tower_ryw::Topology::waiting),
            busiest: recorder.sessions(SESSIONS),
        },
        decisions: recorder.kept(),
        losses: Losses {
            told: seen.lost_told,
            told_total: stats.lost_told,
            unknown_outcomes: seen.unknown_outcomes,
            unknown_outcomes_total: stats.unknown_outcomes,
            degraded_marks_total: stats.degraded_marks,
            dropped_total: store.map_or(0, |store| store.dropped),
            tokens_refused_total: stats.tokens_refused,
            unproven_total: stats.unproven,
        },
        store: store.map(Store::from),
        checks: checks(&stats, &seen),
    }
}

fn checks(stats: &StatsSnapshot, seen: &Seen) -> Checks {
    let sum = |of: &[Checked]| {
        let counted = stats.checked.iter().filter(|(found, _)| of.contains(found));
        counted.map(|(_, count)| count).sum()
    };
    Checks {
        violations: seen.violations,
        violations_total: sum(&[Checked::Violation]),
        decided_total: sum(&[Checked::Agreed, Checked::Violation]),
        all_total: sum(&Checked::ALL),
    }
}

pub(crate) fn routing(layer: &RywLayer, recorder: &Recorder) -> Routing {
    of(&layer.stats().snapshot(), &recorder.sum(SECONDS), recorder)
}

pub(crate) fn nodes(layer: &RywLayer, recorder: &Recorder, thresholds: &Thresholds) -> Vec<Node> {
    health::health(layer, recorder, thresholds).nodes
}

fn of(stats: &StatsSnapshot, seen: &Seen, recorder: &Recorder) -> Routing {
    let total = |route: &str, reason| {
        let same = stats.routed.iter().find(|(by, why, _)| *by == route && *why == reason);
        same.map_or(0, |(.., count)| *count)
    };
    let explained = |(reason, [replica, primary]): (Reason, &[u32; 2])| Explained {
        reason: reason.word(),
        meaning: meaning(reason),
        family: family(reason),
        replica: *replica,
        primary: *primary,
        replica_total: total("replica", reason),
        primary_total: total("primary", reason),
    };
    let reasons: Vec<_> = Reason::ALL.into_iter().zip(&seen.counts).map(explained).collect();
    let (writes, reads): (Vec<_>, Vec<_>) = reasons.iter().partition(|reason| reason.reason == Reason::Write.word());
    let sum = |of: &[&Explained], count: fn(&Explained) -> u32| of.iter().map(|reason| u64::from(count(reason))).sum();
    Routing {
        seconds: SECONDS,
        reads_by_replicas: sum(&reads, |reason| reason.replica),
        reads_by_primary: sum(&reads, |reason| reason.primary),
        writes: sum(&writes, |reason| reason.primary),
        unachieved: seen.unachieved,
        unproven: seen.unproven,
        refused_total: stats.refused,
        reasons,
        spans: SPANS.map(|(seconds, width)| Span { seconds, width, bars: recorder.bars(seconds, width) }).into(),
    }
}

impl From<StoreHealth> for Store {
    fn from(health: StoreHealth) -> Self {
        Self {
            away_seconds: health.away.map(|away| away.as_secs_f64()),
            heard_seconds: health.heard.map(|heard| heard.as_secs_f64()),
            tries: health.tries,
            backlog: health.backlog,
            oldest_seconds: health.oldest.map(|oldest| oldest.as_secs_f64()),
            dropped: health.dropped,
            full: health.full,
            outbox_bytes: health.outbox_bytes,
            outbox_failed: health.outbox_failed,
        }
    }
}
