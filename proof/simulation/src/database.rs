//! A primary and its replicas: logs, epochs, lag. No disk, no network and no clock: every method is told the time.
//!
//! A position is the number of entries of the log. Replicas receive entries late and apply them later; what they show is
//! what they have applied. Which delay an entry has depends on nothing but the entry and the replica, so that it makes no
//! difference when somebody looks.

use std::time::Duration;

use ryw_core::{
    ClusterId, Epoch, Position,
    seeded::{Bug, is_on},
};
use tower_ryw::topology::{Incarnation, Reading, Role};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(1);

/// A key: lists below [`FIRST_REGISTER`], registers from there on.
pub(crate) type Key = u16;
pub(crate) const FIRST_REGISTER: Key = 100;

/// One committed write.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    value: u64,
    /// Larger for whatever was committed later, in whichever epoch.
    version: u64,
    /// When it came into this log.
    at: Duration,
}

/// The nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    versions: u64,
    newest: u32,
}

/// How late a replica is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    pub(crate) receive: Duration,
    pub(crate) apply: Duration,
}

#[derive(Debug)]
pub(crate) struct Node {
    log: Vec<Entry>,
    applied: usize,
    epoch: u32,
    forks: Vec<(u32, u32, u64)>,
    pub(crate) role: Role,
    pub(crate) up: bool,
    /// Which run of its server this is.
    pub(crate) run: u64,
    upstream: Option<usize>,
    pub(crate) lag: Lag,
    paused: bool,
    cut: bool,
    /// Nothing is received or applied as of an earlier time.
    since: Duration,
    /// Of a primary: how long a standby's confirmation takes; commits wait for it.
    pub(crate) confirmed_in: Option<Duration>,
}

/// Why a node does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Down,
    ReadOnly,
}

impl Cluster {
    /// A primary, and replicas that follow it.
    pub(crate) fn new(replicas: usize) -> Self {
        let node = |role, upstream| Node {
            log: Vec::new(),
            applied: 0,
            epoch: 1,
            forks: Vec::new(),
            role,
            up: true,
            run: 1,
            upstream,
            lag: Lag::default(),
            paused: false,
            cut: false,
            since: Duration::ZERO,
            confirmed_in: None,
        };
        let mut nodes = vec![node(Role::Primary, None)];
        nodes.resize_with(replicas + 1, || node(Role::Replica, Some(0)));
        Self { nodes, versions: 0, newest: 1 }
    }

    /// Lets everything happen that is due.
    pub(crate) fn advance(&mut self, now: Duration) {
        for index in 0..self.nodes.len() {
            self.receive(index, now);
        }
        for index in 0..self.nodes.len() {
            self.show(index, now);
        }
    }

    fn receive(&mut self, index: usize, now: Duration) {
        let node = &self.nodes[index];
        let Some(upstream) = node.upstream.filter(|upstream| node.up && !node.cut && self.nodes[*upstream].up) else {
            return;
        };
        while let Some(entry) = self.nodes[upstream].log.get(self.nodes[index].log.len()).copied() {
            let node = &mut self.nodes[index];
            let due = (entry.at + jittered(node.lag.receive, entry.version, index)).max(node.since);
            let due = node.log.last().map_or(due, |last| due.max(last.at));
            if due > now {
                return;
            }
            node.log.push(Entry { at: due, ..entry });
        }
    }

    fn show(&mut self, index: usize, now: Duration) {
        let node = &self.nodes[index];
        if !node.up {
            return;
        }
        if node.role == Role::Primary {
            let shown = match node.confirmed_in {
                None => node.log.len(),
                Some(delay) => {
                    let confirmed = |place: usize| {
                        let standbys = self.nodes.iter().filter(|other| other.upstream == Some(index));
                        standbys.filter_map(|standby| standby.log.get(place)).any(|entry| entry.at + delay <= now)
                    };
                    (node.applied..node.log.len()).find(|place| !confirmed(*place)).unwrap_or(node.log.len())
                }
            };
            self.nodes[index].applied = node.applied.max(shown);
            return;
        }
        let node = &mut self.nodes[index];
        while let Some(entry) = node.log.get(node.applied).filter(|_| !node.paused) {
            let due = (entry.at + jittered(node.lag.apply, entry.version, index + 7)).max(node.since);
            if due > now {
                return;
            }
            node.applied += 1;
        }
    }

    /// What a watcher of this node reads.
    pub(crate) fn read(&mut self, index: usize, now: Duration) -> Result<(Reading, Position), Refused> {
        self.advance(now);
        let node = &self.nodes[index];
        if !node.up {
            return Err(Refused::Down);
        }
        let counts = if node.role == Role::Primary || is_on(Bug::Receive) { node.log.len() } else { node.applied };
        let position = node.position(counts);
        let mut reading = Reading::new(node.role, position).incarnation(Incarnation(node.run));
        for (epoch, parent, offset) in &node.forks {
            reading = reading.fork(Epoch::new(*epoch), Epoch::new(*parent), *offset);
        }
        if node.role == Role::Primary && node.confirmed_in.is_some() {
            reading = reading.visible(Some(node.position(node.applied)));
        }
        Ok((reading, position))
    }

    /// Writes to the log of a primary. The same value twice is one write.
    pub(crate) fn write(
        &mut self,
        index: usize,
        run: u64,
        key: Key,
        value: u64,
        now: Duration,
    ) -> Result<usize, Refused> {
        self.advance(now);
        let node = &mut self.nodes[index];
        if !node.up || node.run != run {
            return Err(Refused::Down);
        }
        if node.role != Role::Primary {
            return Err(Refused::ReadOnly);
        }
        self.versions += 1;
        node.log.push(Entry { key, value, version: self.versions, at: now });
        Ok(node.log.len())
    }

    /// Whether the first `length` entries are committed, as far as the node's clients can tell, and the version of the last.
    pub(crate) fn committed(
        &mut self,
        index: usize,
        run: u64,
        length: usize,
        now: Duration,
    ) -> Result<Option<u64>, Refused> {
        self.advance(now);
        let node = &self.nodes[index];
        if !node.up || node.run != run {
            return Err(Refused::Down);
        }
        let entry = node.log.get(length - 1).filter(|_| node.applied >= length);
        Ok(entry.map(|entry| entry.version))
    }

    /// What a snapshot of this node shows of some keys now: of a list all values, of a register the last one with its version.
    pub(crate) fn snapshot(
        &mut self,
        index: usize,
        run: u64,
        keys: &[Key],
        now: Duration,
    ) -> Result<Vec<Shown>, Refused> {
        self.advance(now);
        let node = &self.nodes[index];
        if !node.up || node.run != run {
            return Err(Refused::Down);
        }
        Ok(keys.iter().map(|key| node.shown(*key)).collect())
    }

    /// What the node shows of a key, whatever its state.
    pub(crate) fn shown(&self, index: usize, key: Key) -> Shown {
        self.nodes[index].shown(key)
    }

    pub(crate) fn epoch(&self, index: usize) -> u32 {
        self.nodes[index].epoch
    }

    /// The primary of the newest epoch.
    pub(crate) fn primary(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.role == Role::Primary && node.epoch == self.newest)
    }

    /// The replica that has received most, of those that are of the newest epoch and up.
    pub(crate) fn candidate(&self) -> Option<usize> {
        let able = |index: &usize| {
            let node = &self.nodes[*index];
            node.up && node.role == Role::Replica && node.upstream.is_some() && node.epoch == self.newest
        };
        (0..self.nodes.len()).filter(able).max_by_key(|index| (self.nodes[*index].log.len(), *index))
    }

    pub(crate) fn pause(&mut self, index: usize, paused: bool, now: Duration) {
        self.advance(now);
        self.nodes[index].paused = paused;
        self.nodes[index].since = now;
    }

    pub(crate) fn cut(&mut self, index: usize, cut: bool, now: Duration) {
        self.advance(now);
        self.nodes[index].cut = cut;
        self.nodes[index].since = now;
    }

    pub(crate) fn set_lag(&mut self, index: usize, lag: Lag, now: Duration) {
        self.advance(now);
        self.nodes[index].lag = lag;
        self.nodes[index].since = now;
    }

    pub(crate) fn stop(&mut self, index: usize, now: Duration) {
        self.advance(now);
        self.nodes[index].up = false;
    }

    /// Starts a server that was stopped, with the data that it had.
    pub(crate) fn start(&mut self, index: usize, now: Duration) {
        self.advance(now);
        let node = &mut self.nodes[index];
        if !node.up {
            (node.up, node.run, node.since) = (true, node.run + 1, now);
            if node.role == Role::Primary {
                node.applied = node.log.len();
            }
        }
    }

    /// Makes a replica the primary of a new epoch. With `all` it has received everything that the old primary has.
    pub(crate) fn promote(&mut self, index: usize, all: bool, now: Duration) {
        self.advance(now);
        if let Some(upstream) = self.nodes[index].upstream.filter(|_| all) {
            let missing = self.nodes[upstream].log[self.nodes[index].log.len()..].to_vec();
            self.nodes[index].log.extend(missing.iter().map(|entry| Entry { at: now, ..*entry }));
        }
        self.newest += 1;
        let newest = self.newest;
        let node = &mut self.nodes[index];
        node.forks.push((newest, node.epoch, node.log.len() as u64));
        (node.role, node.upstream, node.epoch, node.paused, node.cut) = (Role::Primary, None, newest, false, false);
        node.applied = node.log.len();
    }

    /// Makes a replica follow the newest primary, if it can without losing anything. Returns whether it does.
    pub(crate) fn follow(&mut self, index: usize, now: Duration) -> bool {
        self.advance(now);
        let Some(primary) = self.primary().filter(|primary| *primary != index) else { return false };
        let (own, theirs) = (self.nodes[index].log.len(), self.common(index, primary));
        let can = self.nodes[index].role == Role::Replica && own == theirs;
        if can {
            self.attach(index, primary, now);
        }
        can
    }

    /// Takes whatever a node has beyond the newest primary's history from it, and restarts it as a replica.
    pub(crate) fn rewind(&mut self, index: usize, now: Duration) {
        self.advance(now);
        let Some(primary) = self.primary().filter(|primary| *primary != index) else { return };
        let common = self.common(index, primary);
        let node = &mut self.nodes[index];
        node.log.truncate(common);
        node.applied = node.applied.min(common);
        (node.role, node.up, node.run, node.paused, node.cut) = (Role::Replica, true, node.run + 1, false, false);
        self.attach(index, primary, now);
    }

    /// Puts another server with an older copy of the data in a replica's place.
    pub(crate) fn replace(&mut self, index: usize, now: Duration) {
        self.advance(now);
        let node = &mut self.nodes[index];
        if node.role == Role::Replica && node.upstream.is_some() {
            let kept = node.applied / 2;
            node.log.truncate(kept);
            (node.applied, node.run, node.since, node.up) = (kept, node.run + 1, now, true);
        }
    }

    fn attach(&mut self, index: usize, primary: usize, now: Duration) {
        let (epoch, forks) = (self.nodes[primary].epoch, self.nodes[primary].forks.clone());
        let node = &mut self.nodes[index];
        (node.upstream, node.epoch, node.forks, node.since) = (Some(primary), epoch, forks, now);
    }

    fn common(&self, one: usize, other: usize) -> usize {
        let pairs = self.nodes[one].log.iter().zip(&self.nodes[other].log);
        pairs.take_while(|(a, b)| a.version == b.version).count()
    }
}

/// What is visible of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    List(Vec<u64>),
    Register(Option<(u64, u64)>),
}

impl Node {
    fn position(&self, entries: usize) -> Position {
        Position::new(CLUSTER, Epoch::new(self.epoch), entries as u64)
    }

    fn shown(&self, key: Key) -> Shown {
        let mut own = self.log[..self.applied].iter().filter(|entry| entry.key == key);
        if key < FIRST_REGISTER {
            Shown::List(own.map(|entry| entry.value).collect())
        } else {
            Shown::Register(own.next_back().map(|entry| (entry.value, entry.version)))
        }
    }
}

/// Between half and one and a half of it, always the same for the same entry.
fn jittered(lag: Duration, entry: u64, salt: usize) -> Duration {
    let mixed = (entry ^ (salt as u64) << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
    lag.mul_f64(0.5 + mixed as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lagging(ms: u32) -> Cluster {
        let mut cluster = Cluster::new(2);
        for replica in 1..3 {
            cluster.set_lag(replica, Lag { receive: ms * MS, apply: ms * MS }, Duration::ZERO);
        }
        cluster
    }

    fn list(cluster: &mut Cluster, node: usize, now: Duration) -> Vec<u64> {
        cluster.advance(now);
        match cluster.shown(node, 0) {
            Shown::List(values) => values,
            Shown::Register(_) => Vec::new(),
        }
    }

    #[test]
    fn replicas_are_late_and_in_order() {
        let mut cluster = lagging(10);
        for value in 1..4 {
            cluster.write(0, 1, 0, value, value as u32 * MS).unwrap();
        }
        assert_eq!(list(&mut cluster, 0, 3 * MS), [1, 2, 3]);
        assert_eq!(list(&mut cluster, 1, 10 * MS), [0; 0]);
        let mut seen = 0;
        for ms in 10..60 {
            let now = list(&mut cluster, 1, ms * MS);
            assert!(now.len() >= seen && now == [1, 2, 3][..now.len()]);
            seen = now.len();
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn a_promotion_loses_what_was_not_received_and_whoever_is_ahead_can_not_follow() {
        let mut cluster = lagging(10);
        cluster.cut(1, true, Duration::ZERO);
        cluster.write(0, 1, 0, 1, MS).unwrap();
        cluster.advance(50 * MS);
        cluster.stop(0, 50 * MS);
        cluster.promote(1, false, 50 * MS);
        assert_eq!(list(&mut cluster, 1, 50 * MS), [0; 0]);
        assert!(!cluster.follow(2, 51 * MS), "it has what the new primary has not");
        assert_eq!(list(&mut cluster, 2, 60 * MS), [1]);
        cluster.write(1, 1, 0, 2, 60 * MS).unwrap();
        cluster.rewind(2, 61 * MS);
        cluster.rewind(0, 61 * MS);
        assert_eq!(list(&mut cluster, 2, 200 * MS), [2]);
        assert_eq!(list(&mut cluster, 0, 200 * MS), [2]);
        assert_eq!(cluster.nodes[0].run, 2);
    }

    #[test]
    fn a_commit_that_waits_for_a_standby_is_visible_there_first() {
        let mut cluster = lagging(1);
        cluster.nodes[0].confirmed_in = Some(10 * MS);
        let end = cluster.write(0, 1, 0, 1, MS).unwrap();
        assert_eq!(list(&mut cluster, 1, 6 * MS), [1]);
        assert_eq!(list(&mut cluster, 0, 6 * MS), [0; 0]);
        assert_eq!(cluster.committed(0, 1, end, 6 * MS), Ok(None));
        assert_eq!(cluster.committed(0, 1, end, 20 * MS), Ok(Some(1)));
    }
}
