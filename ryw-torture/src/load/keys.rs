//! Which keys are in use: a few at a time, so that sessions meet, and new ones all the time, so that lists stay short.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many values a key gets before another one takes its place.
const VALUES: u64 = 16;

/// The keys of the sessions of one level. Others do not write there: a promise of one level says nothing about what
/// sessions of another did.
#[derive(Debug)]
pub(crate) struct Keys {
    group: &'static str,
    /// How many values each place has been given.
    places: Vec<AtomicU64>,
}

impl Keys {
    pub(crate) fn new(group: &'static str, places: usize) -> Self {
        Self { group, places: (0..places.max(1)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// A list to append to.
    pub(crate) fn for_value(&self, rng: &mut fastrand::Rng) -> String {
        let place = rng.usize(..self.places.len());
        self.name(place, self.places[place].fetch_add(1, Relaxed))
    }

    /// A list that others may have appended to.
    pub(crate) fn any(&self, rng: &mut fastrand::Rng) -> String {
        let place = rng.usize(..self.places.len());
        self.name(place, self.places[place].load(Relaxed))
    }

    /// All lists that there have been.
    pub(crate) fn all(&self) -> impl Iterator<Item = String> + '_ {
        let places = self.places.iter().enumerate();
        let numbers = places.flat_map(|(place, values)| (0..=values.load(Relaxed) / VALUES).map(move |n| (place, n)));
        numbers.map(|(place, number)| self.name(place, number * VALUES))
    }

    fn name(&self, place: usize, values: u64) -> String {
        format!("{}-{place}-{}", self.group, values / VALUES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_left_when_it_has_enough_values() {
        let keys = Keys::new("x", 1);
        let mut rng = fastrand::Rng::with_seed(1);
        let used: Vec<String> = (0..=VALUES).map(|_| keys.for_value(&mut rng)).collect();
        assert!(used[..VALUES as usize].iter().all(|key| key == "x-0-0"));
        assert_eq!((used[VALUES as usize].as_str(), keys.any(&mut rng).as_str()), ("x-0-1", "x-0-1"));
        assert_eq!(keys.all().collect::<Vec<_>>(), ["x-0-0", "x-0-1"]);
    }
}
