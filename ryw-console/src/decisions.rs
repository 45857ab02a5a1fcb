//! The last decisions, as many as fit.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ryw_core::SubjectTag;
use serde::Serialize;
use tower_ryw::Routed;

/// How many are kept.
const CAPACITY: usize = 2000;
/// How many names of nodes are kept; those beyond are not told.
const MAX_NODES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Decisions {
    number: u64,
    kept: VecDeque<Decision>,
    nodes: Vec<Arc<str>>,
}

/// How many there are to look at, of how many there were.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Kept {
    kept: usize,
    total: u64,
}

/// Where one request was sent, and why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Decision {
    /// Counted from 1.
    number: u64,
    /// In ms since 1970.
    at_ms: u64,
    kind: &'static str,
    route: &'static str,
    node: Option<Arc<str>>,
    reason: &'static str,
    level: &'static str,
    took_ms: f64,
    waited_ms: f64,
    achieved: bool,
    /// Whether what it had to see rests on nothing that nobody believes.
    proven: bool,
    #[serde(serialize_with = "as_text_if_any")]
    session: Option<SubjectTag>,
    /// Of the session's name, so that it can be looked for and not be read.
    #[serde(skip)]
    name: Option<u64>,
}

/// What one session has done lately.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SessionSum {
    #[serde(serialize_with = "as_text")]
    session: SubjectTag,
    requests: u32,
    /// Its reads that the primary served.
    reads_on_primary: u32,
    /// Why the last of its requests went where it went.
    reason: &'static str,
    last_ms: u64,
}

impl Decisions {
    pub(crate) fn push(&mut self, event: &Routed<'_>, at: Duration, name: Option<u64>) {
        self.number += 1;
        if self.kept.len() >= CAPACITY {
            self.kept.pop_front();
        }
        let node = event.node.and_then(|node| self.named(node));
        self.kept.push_back(Decision {
            number: self.number,
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            kind: if event.read { "read" } else { "write" },
            route: event.route(),
            node,
            reason: event.reason.word(),
            level: event.level.word(),
            took_ms: event.took.as_secs_f64() * 1e3,
            waited_ms: event.waited.as_secs_f64() * 1e3,
            achieved: event.achieved,
            proven: event.proven,
            session: event.session.map(|session| session.tag()),
            name,
        });
    }

    fn named(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(node) = self.nodes.iter().find(|node| ***node == *name) {
            return Some(Arc::clone(node));
        }
        let room = self.nodes.len() < MAX_NODES;
        room.then(|| {
            let node = Arc::<str>::from(name);
            self.nodes.push(Arc::clone(&node));
            node
        })
    }

    /// The newest first: all, or those of the session that has this tag, or a name with this hash.
    /// `primary_reads`: only reads that the primary served.
    pub(crate) fn last(&self, limit: usize, session: Option<(&str, u64)>, primary_reads: bool) -> Vec<Decision> {
        let is_asked_for = |decision: &&Decision| {
            let is_of = session.is_none_or(|(tag, name)| {
                decision.name == Some(name) || decision.session.is_some_and(|session| session.to_string() == tag)
            });
            is_of && (!primary_reads || decision.is_primary_read())
        };
        self.kept.iter().rev().filter(is_asked_for).take(limit).cloned().collect()
    }

    pub(crate) fn kept(&self) -> Kept {
        Kept { kept: self.kept.len(), total: self.number }
    }

    /// Those who have read most from the primary lately, then those who have asked most.
    pub(crate) fn sessions(&self, limit: usize) -> Vec<SessionSum> {
        let mut sums: HashMap<SubjectTag, SessionSum> = HashMap::new();
        for decision in &self.kept {
            let Some(session) = decision.session else { continue };
            let Decision { reason, at_ms: last_ms, .. } = *decision;
            let sum = sums.entry(session);
            let sum = sum.or_insert(SessionSum { session, requests: 0, reads_on_primary: 0, reason, last_ms });
            sum.requests += 1;
            sum.reads_on_primary += u32::from(decision.is_primary_read());
            (sum.reason, sum.last_ms) = (reason, last_ms);
        }
        let mut sums: Vec<_> = sums.into_values().collect();
        sums.sort_by_key(|sum| std::cmp::Reverse((sum.reads_on_primary, sum.requests, sum.session)));
        sums.truncate(limit);
        sums
    }
}

impl Decision {
    fn is_primary_read(&self) -> bool {
        self.kind == "read" && self.route == "primary"
    }
}

fn as_text<S: serde::Serializer>(session: &SubjectTag, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(session)
}

fn as_text_if_any<S: serde::Serializer>(session: &Option<SubjectTag>, to: S) -> Result<S::Ok, S::Error> {
    session.map(|session| session.to_string()).serialize(to)
}
