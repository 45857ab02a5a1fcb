//! What has really happened: logs, forks, and which write is where. In words of its own, so that the product is not judged by itself.

use smallvec::SmallVec;

use crate::{Bounds, NODES};

/// A place in the log: the first epoch is 1, the first write is at offset 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which reign.
    pub epoch: u8,
    /// How far.
    pub offset: u8,
}

/// A set of writes, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writes(u8);

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// It does not answer.
    #[default]
    Down,
    /// It calls itself the primary, rightly or not.
    Primary,
    /// It applies a primary's log.
    Replica,
}

/// A node; also what an instance has last heard of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// What it does.
    pub role: Role,
    /// What it has applied or written.
    pub place: Place,
    /// Up to where its own snapshots show it.
    pub visible: u8,
    /// Which run of its server.
    pub run: u8,
}

/// The cluster as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Truth {
    /// Where the second epoch and those after it began: parent and last shared place.
    pub forks: SmallVec<[Place; 2]>,
    /// Where each write is, by number.
    pub log: SmallVec<[Place; 4]>,
    /// The nodes.
    pub nodes: [Node; NODES],
}

impl Place {
    pub(crate) const fn new(epoch: u8, offset: u8) -> Self {
        Self { epoch, offset }
    }
}

impl Writes {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn one(number: usize) -> Self {
        Self(1 << number)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Node {
    /// What its snapshots show.
    pub(crate) const fn shows(self) -> Place {
        match self.role {
            Role::Primary => Place::new(self.place.epoch, self.visible),
            Role::Replica | Role::Down => self.place,
        }
    }
}

impl Truth {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let start = Place::new(1, 0);
        let mut nodes = [Node::default(); NODES];
        for (number, node) in nodes.iter_mut().enumerate().take(bounds.nodes) {
            *node = Node {
                role: if number == 0 { Role::Primary } else { Role::Replica },
                place: start,
                visible: 0,
                run: 0,
            };
        }
        Self { forks: SmallVec::new(), log: SmallVec::new(), nodes }
    }

    pub(crate) fn newest(&self) -> u8 {
        1 + u8::try_from(self.forks.len()).unwrap_or(u8::MAX)
    }

    /// Where `epoch` began. Nothing for the first.
    pub(crate) fn fork(&self, epoch: u8) -> Option<Place> {
        self.forks.get(usize::from(epoch).checked_sub(2)?).copied()
    }

    /// The first place of an epoch that nobody has written to.
    pub(crate) fn begin(&self, epoch: u8) -> u8 {
        self.fork(epoch).map_or(0, |fork| fork.offset)
    }

    /// The last place of an epoch that anybody has written to.
    pub(crate) fn end(&self, epoch: u8) -> u8 {
        let own = self.log.iter().filter(|place| place.epoch == epoch).map(|place| place.offset);
        own.max().unwrap_or(0).max(self.begin(epoch))
    }

    /// The same place, named by the epoch that wrote it.
    pub(crate) fn origin(&self, mut place: Place) -> Place {
        while let Some(fork) = self.fork(place.epoch).filter(|fork| place.offset <= fork.offset) {
            place.epoch = fork.epoch;
        }
        place
    }

    /// Whether whoever has applied everything up to `holder` has `place`: walks down from the holder to the root.
    pub(crate) fn contains(&self, holder: Place, place: Place) -> bool {
        let place = self.origin(place);
        let (mut epoch, mut cut) = (holder.epoch, holder.offset);
        loop {
            if epoch == place.epoch {
                return place.offset <= cut;
            }
            let Some(fork) = self.fork(epoch) else { return false };
            (epoch, cut) = (fork.epoch, cut.min(fork.offset));
        }
    }

    /// All writes up to `holder`.
    pub(crate) fn shown(&self, holder: Place) -> Writes {
        let contained = (0..self.log.len()).filter(|number| self.contains(holder, self.log[*number]));
        contained.fold(Writes::NONE, |all, number| all.and(Writes::one(number)))
    }

    /// All writes that are not part of `epoch` and never will be.
    pub(crate) fn dead(&self, epoch: u8) -> Writes {
        let all = (0..self.log.len()).fold(Writes::NONE, |all, number| all.and(Writes::one(number)));
        all.without(self.shown(Place::new(epoch, u8::MAX)))
    }

    /// Whether `epoch` is `descendant` or one that it descends from.
    pub(crate) fn descends(&self, mut descendant: u8, epoch: u8) -> bool {
        loop {
            match self.fork(descendant) {
                _ if descendant == epoch => return true,
                Some(fork) => descendant = fork.epoch,
                None => return false,
            }
        }
    }
}
