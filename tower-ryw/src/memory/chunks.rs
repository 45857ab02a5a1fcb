//! A vector that grows without moving what it has.

use std::{iter, sync::OnceLock};

/// Pieces of 256 up to a length of 2048; from there on eight to each doubling, so that growth takes an eighth more at most.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
    /// The largest index.
    last: u32,
}

const FIRST: u32 = 256;
const PER_DOUBLING: u32 = 8;

/// Where an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    chunk: usize,
    offset: usize,
    /// The length of the chunk.
    length: usize,
}

impl<T> Chunks<T> {
    /// With room for indexes up to `last`.
    pub(super) fn up_to(last: u32) -> Self {
        Self { chunks: (0..=Place::of(last).chunk).map(|_| OnceLock::new()).collect(), last }
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let Place { chunk, offset, .. } = Place::of(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    /// Makes the chunk that `index` is in, unless it is there or beyond the last one.
    pub(super) fn grow_to(&self, index: u32, new: impl FnMut() -> T) {
        let Place { chunk, offset, length } = Place::of(index);
        if let Some(chunk) = self.chunks.get(chunk) {
            // The last one is no longer than it has to be.
            let rest = (self.last as usize + 1).saturating_sub(index as usize - offset);
            chunk.get_or_init(|| iter::repeat_with(new).take(length.min(rest)).collect());
        }
    }
}

impl Place {
    fn of(index: u32) -> Self {
        let doublings = (index / (FIRST * PER_DOUBLING)).checked_ilog2().map_or(0, |doublings| doublings + 1);
        let length = FIRST << doublings.saturating_sub(1);
        let chunk = doublings * PER_DOUBLING + index / length % PER_DOUBLING;
        Self { chunk: chunk as usize, offset: (index % length) as usize, length: length as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_and_chunks_are_an_eighth_at_most() {
        let mut before = Place::of(0);
        assert_eq!(before, Place { chunk: 0, offset: 0, length: 256 });
        for index in 1..1_000_000 {
            let place = Place::of(index);
            let next = match before.offset + 1 == before.length {
                true => (before.chunk + 1, 0),
                false => (before.chunk, before.offset + 1),
            };
            assert_eq!((place.chunk, place.offset), next, "{index}");
            assert!(place.length <= 256.max(index as usize / 8), "{index}: {place:?}");
            before = place;
        }
        assert!(Place::of(u32::MAX).chunk < 200);
    }

    #[test]
    fn what_was_there_stays_where_it_is() {
        let chunks = Chunks::up_to(10_000);
        assert!(chunks.get(0).is_none());
        chunks.grow_to(0, || 7);
        let first: *const i32 = chunks.get(255).unwrap();
        assert!(chunks.get(256).is_none());
        (0..=10_000).for_each(|index| chunks.grow_to(index, || 8));
        assert_eq!(first, chunks.get(255).unwrap() as *const i32);
        assert_eq!((chunks.get(255), chunks.get(10_000), chunks.get(10_001)), (Some(&7), Some(&8), None));
    }
}
