//! Stage 3, live: asks [`decide`] with the newest view, waits when it says so, and takes the budget it needs.

use std::time::Duration;

use ryw_core::{ClusterId, Epoch, Reason};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{Config, Permit},
    decide::{Decision, Excluded, Next, Now, Question, decide},
    identify::Identity,
    lookup::{Doubt, Required},
    policy::Terms,
    topology::{Topology, View, Who},
};

/// Replicas are not regular: a wait is worth a try when the estimate is this many times as long as the patience.
const OPTIMISM: u32 = 3;

/// A request on its way: where to, and the place it takes in the primary's budget.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) decision: Decision,
    pub(crate) permit: Option<Permit>,
    /// The cluster and epoch that was current then.
    pub(crate) since: Option<(ClusterId, Epoch)>,
}

/// What can be said without waiting.
#[derive(Debug)]
pub(crate) enum Attempt {
    Routed(Routing),
    Wait { offset: u64 },
    Refused(Reason),
}

/// What is asked of the nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) terms: &'a Terms,
    pub(crate) required: &'a Required,
    pub(crate) waited: Duration,
    pub(crate) may_wait: bool,
    pub(crate) excluded: Excluded<'a>,
}

impl<'a> Asked<'a> {
    /// At once, of all nodes.
    pub(crate) const fn new(terms: &'a Terms, required: &'a Required) -> Self {
        Self { terms, required, waited: Duration::ZERO, may_wait: false, excluded: Excluded::These(&[]) }
    }
}

/// Decides now.
pub(crate) fn attempt(config: &Config, asked: Asked<'_>) -> Attempt {
    let view = config.topology.as_ref().map(|topology| topology.view());
    attempt_in(view.as_ref().map(|view| &***view), config, asked)
}

/// The same, by what `view` shows.
pub(crate) fn attempt_in(view: Option<&View>, config: &Config, asked: Asked<'_>) -> Attempt {
    let Asked { terms, required, waited, may_wait, excluded } = asked;
    // One number is enough for both.
    let random = fastrand::usize(..);
    let pick = [random, random.rotate_right(usize::BITS / 2)];
    let now = Now::default();
    let mut question = Question { terms, required, view, now: &now, waited, may_wait, budget: true, pick, excluded };
    let mut next = decide(&question);
    let mut permit = None;
    if matches!(&next, Next::Serve(decision) if decision.degraded) {
        permit = config.budget.take();
        if permit.is_none() {
            question.budget = false;
            next = decide(&question);
        }
    }
    // Not for what may be made up: whoever makes it up does not set how often nodes are read.
    if let (Next::Serve(Decision { degraded: true, .. }), Some(topology)) = (&next, &config.topology)
        && required.doubt == Doubt::None
    {
        topology.missed();
    }
    match next {
        Next::Serve(decision) => Attempt::Routed(Routing { decision, permit, since: view.and_then(View::era) }),
        Next::Wait { offset } => Attempt::Wait { offset },
        Next::Refuse(reason) => Attempt::Refused(reason),
    }
}

/// Decides, and waits for a replica for as long as the ladder allows. The wait holds no connection.
pub(crate) async fn route(config: &Config, identity: &Identity, required: &Required) -> Result<Routing, Reason> {
    let terms = identity.terms;
    let session = identity.keys.first().copied().filter(|_| identity.has_session);
    let who = Who { tenant: identity.tenant.clone(), session };
    let started = Instant::now();
    let deadline = started + terms.ladder.wait;
    let mut may_wait = terms.ladder.wait > Duration::ZERO;
    let mut waited = Duration::ZERO;
    loop {
        let asked = Asked { waited, may_wait, ..Asked::new(&terms, required) };
        let offset = match attempt(config, asked) {
            Attempt::Routed(routing) => return Ok(routing),
            Attempt::Refused(reason) => return Err(reason),
            Attempt::Wait { offset } => offset,
        };
        // Waiting in vain costs the client its patience and helps nobody.
        let hopeless = |topology: &Topology| topology.expected_wait(offset) > terms.ladder.wait * OPTIMISM;
        if config.topology.as_ref().is_some_and(hopeless) {
            may_wait = false;
            continue;
        }
        // In line first, then a second look: a report in between is not missed.
        let waiter = config.topology.as_ref().and_then(|topology| topology.wait_for(offset, who.clone()));
        let Some(mut waiter) = waiter else {
            may_wait = false;
            continue;
        };
        match attempt(config, asked) {
            Attempt::Routed(routing) => return Ok(routing),
            Attempt::Refused(reason) => return Err(reason),
            Attempt::Wait { .. } => may_wait = timeout_at(deadline, waiter.woken()).await.is_ok(),
        }
        waited = started.elapsed().max(Duration::from_nanos(1));
    }
}
