//! One run, from its seed to its verdict.

use std::{collections::BTreeMap, sync::Once, time::Duration};

use fastrand::Rng;
use ryw_check::{Function, History, Level, Operation, Options, Report, Violation, check};
use ryw_core::seeded::Bug;
use turmoil::{Builder, Sim};

use crate::{
    client::{Caller, Tab, control, keys},
    database::Cluster,
    history::hash,
    judge,
    nemesis::Nemesis,
    plan::{CLIENTS, LENGTH, Plan},
    service::{self, HOSTS},
    store::{self, Keeps},
    world::World,
};

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What decided everything.
    pub seed: u64,
    /// The hash of its history: the same seed has the same.
    pub hash: u64,
    /// Operations of sessions.
    pub ops: u64,
    /// Reads that a naive router could have served stale.
    pub temptations: u64,
    /// The share of reads that replicas served.
    pub replica_share: f64,
    /// How often each fault was injected.
    pub faults: BTreeMap<&'static str, u64>,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// The number of the first operation that broke one, among those of the history.
    pub first: Option<i64>,
    /// Whether the checker has found what the session without a guard has seen.
    pub control_was_caught: bool,
    /// The history, as `ryw-check` reads it.
    pub history: String,
    /// What went wrong, and what every answer has said, a line each.
    pub answers: String,
}

const QUIESCENCE: Duration = Duration::from_millis(400);

/// Runs one seed on this thread.
///
/// # Errors
/// When the simulation itself is broken.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Outcome, Box<dyn std::error::Error>> {
    silence_simulated_panics();
    fastrand::seed(seed);
    let plan = Plan::new(seed, bug);
    let mut cluster = Cluster::new(2);
    cluster.nodes.iter_mut().for_each(|node| node.confirmed_in = plan.confirmed_in);
    for (node, lag) in (1..).zip(plan.lags) {
        cluster.set_lag(node, lag, Duration::ZERO);
    }
    let world = World::new(cluster, Rng::with_seed(seed ^ 0xDA7A), HOSTS.len());
    world.with(|inner| inner.skew.clone_from(&plan.skew));

    let mut sim = Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(LENGTH * 4)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::from_millis(2))
        .tcp_capacity(4096)
        .build();
    let (keeps, of_store) = (Keeps { capacity: plan.capacity, ttl: plan.ttl }, world.clone());
    sim.host(store::HOST, move || store::serve(of_store.clone(), keeps));
    for (number, host) in HOSTS.iter().enumerate() {
        let (world, plan) = (world.clone(), plan.clone());
        sim.host(*host, move || service::run(world.clone(), plan.clone(), number));
    }
    let (of_clients, of_plan) = (world.clone(), plan.clone());
    sim.client(CLIENTS, async move { sessions(&of_clients, &of_plan, seed).await });

    let mut nemesis = Nemesis::new(world.clone(), &plan);
    while !sim.step()? {
        nemesis.act(&mut sim);
    }
    finish(&world, &sim, plan.is_lossy);
    judge(seed, &world)
}

/// A handler that panics is part of a simulation, and nothing to tell people about.
fn silence_simulated_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<service::Simulated>() {
                tell(info);
            }
        }));
    });
}

async fn sessions(world: &World, plan: &Plan, seed: u64) -> turmoil::Result {
    use Level::{Causal, Monotonic, Ryw, Session};
    let mut callers = Vec::new();
    for (number, level) in [Ryw, Monotonic, Session, Causal, Causal, Session].into_iter().enumerate() {
        callers.push(Caller::with_tokens(&format!("t{number}"), level)?);
    }
    // A loss among what the store has forgotten is told to those only who carry their tokens.
    let carries = plan.is_lossy && plan.forgets;
    for (number, level) in [Ryw, Monotonic, Session, Session, Ryw].into_iter().enumerate() {
        let name = format!("n{number}");
        callers.push(if carries { Caller::with_tokens(&name, level)? } else { Caller::by_name(&name, level) });
    }
    callers.extend((0..3).map(|number| Caller::by_name(&format!("o{number}"), Level::Eventual)));
    // A client that is dropped closes its connections in no particular order: none is before everything has been seen.
    let kept = callers.clone();
    for (number, caller) in callers.into_iter().enumerate() {
        // Two tabs, mostly of those whose marks are in the store alone.
        for tab in 0..1 + u32::from((6..11).contains(&number) || number % 3 == 2) {
            world.with(|inner| inner.running += 1);
            let seed = seed.wrapping_mul(1000).wrapping_add(2 * number as u64 + u64::from(tab));
            tokio::spawn(Tab::new(world, plan, caller.clone(), tab, seed).work());
        }
    }
    world.with(|inner| inner.running += 1);
    tokio::spawn(control(world.clone()));
    while world.with(|inner| inner.running > 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(QUIESCENCE).await;
    drop(kept);
    Ok(())
}

/// What survived, on every node.
fn finish(world: &World, sim: &Sim<'_>, is_lossy: bool) {
    let now = sim.elapsed();
    world.with(|inner| {
        inner.cluster.advance(now);
        if is_lossy {
            // Whoever was promised less than to be told has the operator.
            let at = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            let (inv, ret) = (Some(at), Some(at + 1));
            let told =
                Operation { s: "operator".into(), k: Some("k0".into()), inv, ret, ..Operation::new(Function::Read) };
            inner.histories.guarded.add(Operation { out: ryw_check::Outcome::Reset, ..told });
        }
        let all = keys().map(|key| (key, false)).chain([((50, "k50".to_owned()), true)]);
        for ((key, name), is_control) in all.collect::<Vec<_>>() {
            for node in 0..inner.cluster.nodes.len() {
                let shown = inner.cluster.shown(node, key);
                let version = match &shown {
                    crate::database::Shown::Register(value) => value.map(|(_, version)| version),
                    crate::database::Shown::List(_) => None,
                };
                let op = Operation {
                    k: Some(name.clone()),
                    val: judge::value(&service::shown(&shown)),
                    ver: version.and_then(|version| i64::try_from(version).ok()),
                    node: Some(format!("n{node}")),
                    ..Operation::new(Function::Final)
                };
                let histories = &mut inner.histories;
                if is_control { histories.control.add(op) } else { histories.guarded.add(op) }
            }
        }
    });
}

fn judge(seed: u64, world: &World) -> Result<Outcome, Box<dyn std::error::Error>> {
    world.with(|inner| {
        let report = checked(&inner.histories.guarded.text)?;
        let control = checked(&inner.histories.control.text)?;
        let first = report.violations.iter().filter_map(|violation| violation.ops.last()).min().copied();
        let history = std::mem::take(&mut inner.histories.guarded.text);
        Ok(Outcome {
            seed,
            hash: hash(&history),
            ops: inner.histories.guarded.len(),
            temptations: report.temptations,
            replica_share: report.replica_share,
            faults: std::mem::take(&mut inner.faults),
            violations: report.violations,
            first,
            control_was_caught: !control.violations.is_empty(),
            history,
            answers: std::mem::take(&mut inner.answers),
        })
    })
}

fn checked(text: &str) -> Result<Report, Box<dyn std::error::Error>> {
    let mut options = Options::default();
    options.strict = true;
    Ok(check(&History::parse(text)?, &options))
}
