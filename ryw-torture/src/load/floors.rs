//! What a session is owed at least, checked while the run goes on, so that a violation stops it where it happened.
//!
//! Lists only, and only what needs no other session: the checker looks at everything when the run is over.

use std::collections::HashMap;

/// How many keys are remembered; then all are forgotten, which only weakens this check.
const KEYS: usize = 512;

/// One session.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    keys: HashMap<String, Floor>,
    /// How often it was told of a loss.
    resets: u64,
}

#[derive(Clone, Debug, Default)]
struct Floor {
    written: Vec<i64>,
    longest: usize,
}

/// What is known when an operation begins.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    floor: Floor,
    resets: u64,
}

/// Which promises a level makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promises {
    pub(crate) own_writes: bool,
    pub(crate) monotonic: bool,
}

impl Floors {
    pub(crate) fn owed(&self, key: &str) -> Owed {
        Owed { floor: self.keys.get(key).cloned().unwrap_or_default(), resets: self.resets }
    }

    /// An acknowledged append that began at `owed`. What was acknowledged while a loss was told may be part of it.
    pub(crate) fn wrote(&mut self, key: &str, value: i64, owed: &Owed) {
        if owed.resets == self.resets {
            self.floor(key).written.push(value);
        }
    }

    pub(crate) fn told(&mut self) {
        self.resets += 1;
        self.keys.clear();
    }

    /// A read that began at `owed`. Returns what is wrong with it.
    pub(crate) fn read(&mut self, key: &str, shown: &[i64], owed: &Owed, promises: Promises) -> Option<String> {
        if owed.resets != self.resets {
            return None;
        }
        if promises.own_writes
            && let Some(missing) = owed.floor.written.iter().find(|value| !shown.contains(value))
        {
            return Some(format!("key {key} lacks {missing}, which the session has written before"));
        }
        if promises.monotonic && shown.len() < owed.floor.longest {
            let (now, before) = (shown.len(), owed.floor.longest);
            return Some(format!("key {key} has {now} elements, of which the session has seen {before} before"));
        }
        let floor = self.floor(key);
        floor.longest = floor.longest.max(shown.len());
        None
    }

    fn floor(&mut self, key: &str) -> &mut Floor {
        if self.keys.len() >= KEYS && !self.keys.contains_key(key) {
            self.keys.clear();
        }
        self.keys.entry(key.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Promises = Promises { own_writes: true, monotonic: true };

    #[test]
    fn own_writes_have_to_be_shown() {
        let mut floors = Floors::default();
        let before = floors.owed("k");
        floors.wrote("k", 7, &before);
        let after = floors.owed("k");
        assert_eq!(floors.read("k", &[], &before, BOTH), None, "it began before the write was acknowledged");
        assert!(floors.read("k", &[], &after, BOTH).unwrap().contains("lacks 7"));
        assert_eq!(floors.read("k", &[], &after, Promises { own_writes: false, ..BOTH }), None);
        assert_eq!(floors.read("k", &[1, 7], &after, BOTH), None);
    }

    #[test]
    fn what_was_seen_has_to_be_shown() {
        let mut floors = Floors::default();
        let before = floors.owed("k");
        assert_eq!(floors.read("k", &[1, 2], &before, BOTH), None);
        let after = floors.owed("k");
        assert_eq!(floors.read("k", &[1], &before, BOTH), None, "it was under way meanwhile");
        assert!(floors.read("k", &[1], &after, BOTH).unwrap().contains("seen 2"));
        assert_eq!(floors.read("k", &[1], &after, Promises { monotonic: false, ..BOTH }), None);
    }

    #[test]
    fn a_loss_that_was_told_is_owed_no_more() {
        let mut floors = Floors::default();
        let before = floors.owed("k");
        floors.wrote("k", 7, &before);
        let during = floors.owed("k");
        floors.told();
        assert_eq!(floors.read("k", &[], &during, BOTH), None);
        floors.wrote("k", 8, &during);
        let after = floors.owed("k");
        assert_eq!(
            floors.read("k", &[], &after, BOTH),
            None,
            "neither what was lost nor what was acknowledged meanwhile"
        );
    }
}
