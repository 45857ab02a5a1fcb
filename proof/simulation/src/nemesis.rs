//! Makes the plan's faults happen, between two steps of the simulation.

use std::{collections::BTreeSet, time::Duration};

use tower_ryw::topology::Role;
use turmoil::Sim;

use crate::{
    plan::{CLIENTS, Fault, Plan},
    service::HOSTS,
    store::HOST as STORE,
    world::{Inner, World},
};

/// What has yet to happen, and what is going on.
#[derive(Debug)]
pub(crate) struct Nemesis {
    world: World,
    /// The earliest last.
    left: Vec<(Duration, Fault)>,
    plan: Plan,
    /// What may keep a mark from its place, and has not ended.
    under_way: BTreeSet<String>,
    links: Vec<(&'static str, &'static str, bool)>,
    crashed: BTreeSet<&'static str>,
    /// The primary that has failed.
    failed: Option<usize>,
}

impl Nemesis {
    pub(crate) fn new(world: World, plan: &Plan) -> Self {
        let mut left = plan.faults.clone();
        left.reverse();
        Self {
            world,
            left,
            plan: plan.clone(),
            under_way: BTreeSet::new(),
            links: Vec::new(),
            crashed: BTreeSet::new(),
            failed: None,
        }
    }

    /// Everything that is due.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        while self.left.last().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, fault)) = self.left.pop() {
                self.make(fault, sim, now);
            }
        }
        if !self.under_way.is_empty() {
            self.world.with(|inner| inner.disturbed = Some(now));
        }
    }

    fn goes_on(&mut self, what: String, begins: bool, now: Duration) {
        if begins {
            self.under_way.insert(what);
        } else {
            self.under_way.remove(&what);
        }
        self.world.with(|inner| inner.disturbed = Some(now));
    }

    fn make(&mut self, fault: Fault, sim: &mut Sim<'_>, now: Duration) {
        let world = self.world.clone();
        world.with(|inner| inner.answers.push_str(&format!("{} ms: {fault:?}\n", now.as_millis())));
        let count = |name| world.with(|inner| inner.count(name));
        match fault {
            Fault::Lag(node, lag) => {
                count("lag");
                world.with(|inner| inner.cluster.set_lag(node, lag, now));
            }
            Fault::Pause(node, begins) => {
                count("pause");
                world.with(|inner| inner.cluster.pause(node, begins, now));
            }
            Fault::CutReplication(node, begins) => {
                count("replication cut");
                self.goes_on(format!("replication {node}"), begins, now);
                world.with(|inner| inner.cluster.cut(node, begins, now));
            }
            Fault::CutOff(service, node, begins) => {
                count("node unreachable");
                self.goes_on(format!("{service}-{node}"), begins, now);
                world.with(|inner| {
                    inner.cut_off.retain(|pair| *pair != (service, node));
                    if begins {
                        inner.cut_off.push((service, node));
                    }
                });
            }
            Fault::Partition(one, other, begins) => self.link(sim, (one, other, false), begins, now),
            Fault::Hold(one, other, begins) => self.link(sim, (one, other, true), begins, now),
            Fault::StoreTakes(takes) => {
                count("slow store");
                self.goes_on("slow store".into(), !takes.is_zero(), now);
                world.with(|inner| inner.store_takes = takes);
            }
            Fault::StoreCrash(begins) => {
                count("store crash");
                self.crash(sim, STORE, begins, now);
            }
            Fault::StoreWiped => {
                count("store wiped");
                world.with(|inner| inner.wipe_store = true);
            }
            Fault::ServiceCrash(service, begins) => {
                count("service crash");
                self.crash(sim, HOSTS[service], begins, now);
            }
            Fault::Primary(starts) => {
                // A failover that is under way has a say in who is the primary.
                if self.failed.is_none() {
                    count("primary restart");
                    self.goes_on("primary".into(), !starts, now);
                    world.with(|inner| {
                        if let Some(primary) = inner.cluster.primary() {
                            if starts { inner.cluster.start(primary, now) } else { inner.cluster.stop(primary, now) }
                        }
                    });
                }
            }
            Fault::Replica(node, starts) => {
                count("replica restart");
                world.with(|inner| {
                    if inner.cluster.nodes[node].role == Role::Replica {
                        if starts { inner.cluster.start(node, now) } else { inner.cluster.stop(node, now) }
                    }
                });
            }
            Fault::Replaced(node) => {
                count("replica replaced");
                world.with(|inner| inner.cluster.replace(node, now));
            }
            Fault::Fails { goes_on } => {
                if self.failed.is_none() {
                    self.failed = world.with(|inner| inner.cluster.primary());
                    self.goes_on("failover".into(), true, now);
                    if let Some(primary) = self.failed.filter(|_| !goes_on) {
                        world.with(|inner| inner.cluster.stop(primary, now));
                    }
                }
            }
            Fault::Promote { all } => world.with(|inner| self.promote(inner, all, now)),
            Fault::Follow => world.with(|inner| {
                for node in 0..inner.cluster.nodes.len() {
                    inner.cluster.follow(node, now);
                }
            }),
            Fault::Rewind => self.rewind(now),
            Fault::Heal => self.heal(sim, now),
        }
    }

    fn promote(&self, inner: &mut Inner, all: bool, now: Duration) {
        if self.failed.is_none() || self.failed != inner.cluster.primary() {
            return;
        }
        if let Some(candidate) = inner.cluster.candidate() {
            inner.cluster.promote(candidate, all, now);
            inner.count(if all { "failover" } else { "failover with loss" });
        }
    }

    fn rewind(&mut self, now: Duration) {
        self.world.with(|inner| {
            if let (Some(old), Some(primary)) = (self.failed, inner.cluster.primary()) {
                if old == primary {
                    // Nobody could be promoted.
                    inner.cluster.start(old, now);
                } else {
                    inner.cluster.rewind(old, now);
                }
            }
            for node in 0..inner.cluster.nodes.len() {
                let is_primary = inner.cluster.primary() == Some(node);
                if !is_primary && inner.cluster.nodes[node].up {
                    inner.cluster.cut(node, false, now);
                    if !inner.cluster.follow(node, now) {
                        inner.cluster.rewind(node, now);
                    }
                }
            }
        });
        self.failed = None;
        self.goes_on("failover".into(), false, now);
        self.under_way.retain(|what| !what.starts_with("replication"));
    }

    fn link(&mut self, sim: &Sim<'_>, link: (&'static str, &'static str, bool), begins: bool, now: Duration) {
        let (one, other, holds) = link;
        self.world.with(|inner| inner.count(if holds { "hold" } else { "partition" }));
        self.goes_on(format!("{one}={other}"), begins, now);
        match (begins, holds) {
            (true, true) => sim.hold(one, other),
            (true, false) => sim.partition(one, other),
            (false, true) => sim.release(one, other),
            (false, false) => sim.repair(one, other),
        }
        self.links.retain(|known| *known != link);
        if begins {
            self.links.push(link);
        }
    }

    /// As when a machine loses its power: its connections end without a word. Its tasks, which a runtime drops in no particular
    /// order, could say so in no particular order only.
    fn crash(&mut self, sim: &mut Sim<'_>, host: &'static str, begins: bool, now: Duration) {
        self.goes_on(host.into(), begins, now);
        if begins && self.crashed.insert(host) {
            let others = HOSTS.into_iter().chain([STORE, CLIENTS]).filter(|other| *other != host);
            others.clone().for_each(|other| sim.partition(host, other));
            sim.crash(host);
            others.for_each(|other| sim.repair(host, other));
            for (one, other, holds) in self.links.iter().filter(|(one, other, _)| [*one, *other].contains(&host)) {
                if *holds { sim.hold(*one, *other) } else { sim.partition(*one, *other) }
            }
        } else if !begins && self.crashed.remove(host) {
            sim.bounce(host);
        }
    }

    fn heal(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for link in self.links.clone() {
            self.link(sim, link, false, now);
        }
        for host in self.crashed.clone() {
            self.crash(sim, host, false, now);
        }
        let lags = self.plan.lags;
        self.world.with(|inner| {
            (inner.cut_off, inner.store_takes) = (Vec::new(), Duration::ZERO);
            for node in 0..inner.cluster.nodes.len() {
                inner.cluster.start(node, now);
                inner.cluster.cut(node, false, now);
                inner.cluster.pause(node, false, now);
            }
            for (node, lag) in (0..).zip([lags[0], lags[0], lags[1]]) {
                inner.cluster.set_lag(node, lag, now);
            }
        });
        self.rewind(now);
        self.under_way.clear();
        // A mark that was late is in its place soon.
        self.world.with(|inner| inner.disturbed = Some(now));
    }
}
