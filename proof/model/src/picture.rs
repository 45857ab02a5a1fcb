//! What the product makes of what an instance has read: its own `Topology`, fed with the same readings.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use ryw_core::{ClusterId, Epoch, Marks, Position};
use tower_ryw::topology::{Incarnation, Reading, Role as Reported, Topology, View};

use crate::{Mutant, NODES, Node, Place, Role, Ryw, Truth, state::Instance};

const CLUSTER: ClusterId = ClusterId::new(1);

/// What is the same for all states is made once: views by what was read.
#[derive(Debug, Default)]
pub(crate) struct Pictures(RwLock<HashMap<Key, Arc<View>>>);

type Key = (Instance, Vec<Place>);

impl Ryw {
    /// The view of an instance that has read this.
    pub(crate) fn view(&self, truth: &Truth, instance: &Instance) -> Arc<View> {
        let key = (*instance, truth.forks.to_vec());
        if let Some(view) = self.pictures.0.read().get(&key) {
            return Arc::clone(view);
        }
        let view = self.develop(truth, instance);
        self.pictures.0.write().insert(key, Arc::clone(&view));
        view
    }

    fn develop(&self, truth: &Truth, instance: &Instance) -> Arc<View> {
        let topology = Topology::new();
        let mut watches: Vec<_> = (0..NODES).map(|node| topology.add(format!("n{node}"))).collect();
        // How the epochs came to be known does not matter, so the first node tells, in a run of its own.
        for epoch in (1..8).filter(|epoch| instance.known & 1 << epoch != 0) {
            let role = if epoch == 1 { Reported::Primary } else { Reported::Replica };
            let reading = Reading::new(role, self.position(Place::new(epoch, truth.begin(epoch))));
            watches[0].begin().report(self.with_forks(truth, epoch, reading.incarnation(Incarnation(u64::MAX))));
        }
        for (watch, node) in watches.iter_mut().zip(&instance.seen) {
            match self.reading(truth, node) {
                Some(reading) => watch.begin().report(reading),
                None => drop(watch.begin()),
            }
        }
        Arc::clone(&topology.view())
    }

    fn reading(&self, truth: &Truth, node: &Node) -> Option<Reading> {
        let role = match node.role {
            Role::Down => return None,
            Role::Primary => Reported::Primary,
            Role::Replica => Reported::Replica,
        };
        let place = self.reported(truth, node);
        let mut reading = Reading::new(role, self.position(place)).incarnation(Incarnation(node.run.into()));
        if self.bounds.synchronous && node.role == Role::Primary && !self.is(Mutant::PrimaryIsFresh) {
            reading = reading.visible(Some(self.position(node.shows())));
        }
        Some(self.with_forks(truth, place.epoch, reading))
    }

    /// Where a node says that it is.
    pub(crate) fn reported(&self, truth: &Truth, node: &Node) -> Place {
        let mut place = node.place;
        // Whoever does not look for it takes a replica that has gone too far to be at the fork.
        while self.is(Mutant::NoFence) && !truth.contains(Place::new(truth.newest(), u8::MAX), place) {
            place.offset -= 1;
        }
        place
    }

    fn with_forks(&self, truth: &Truth, mut epoch: u8, mut reading: Reading) -> Reading {
        while let Some(fork) = truth.fork(epoch).filter(|_| !self.is(Mutant::ComparesNumbers)) {
            reading = reading.fork(Epoch::new(epoch.into()), Epoch::new(fork.epoch.into()), fork.offset.into());
            epoch = fork.epoch;
        }
        reading
    }

    /// The place, as the product names it.
    pub(crate) fn position(&self, place: Place) -> Position {
        let epoch = if self.is(Mutant::ComparesNumbers) { 1 } else { place.epoch };
        Position::new(CLUSTER, Epoch::new(epoch.into()), place.offset.into())
    }

    /// Somewhere in that epoch.
    pub(crate) fn end_of(&self, epoch: u8) -> Marks {
        Marks::at(Position::end_of(CLUSTER, Epoch::new(epoch.into())))
    }
}
