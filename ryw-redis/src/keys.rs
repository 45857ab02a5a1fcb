//! How subjects are named in Redis.

use ryw_core::SubjectKey;
use smallvec::SmallVec;

/// One character for each part of all subjects: as many parts as there are characters.
const TAGS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A key of Redis.
pub(crate) type Name = SmallVec<[u8; 32]>;

/// The names under one prefix. Entry and bucket of a subject are in one slot of a Redis Cluster.
#[derive(Clone, Debug)]
pub(crate) struct KeySpace {
    prefix: String,
}

impl KeySpace {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// `ryw{Q}`, of all subjects whose key begins with the same six bits.
    pub(crate) fn bucket(&self, key: &SubjectKey) -> Name {
        let mut name = Name::from_slice(self.prefix.as_bytes());
        name.extend_from_slice(&[b'{', TAGS[bucket_number(key)], b'}']);
        name
    }

    /// What tells that a server has not been emptied since it was last read.
    pub(crate) fn witness(&self) -> Name {
        let mut name = Name::from_slice(self.prefix.as_bytes());
        name.extend_from_slice(b"{witness}");
        name
    }

    /// The slot of that bucket and its entries in a Redis Cluster: that of the part in braces.
    pub(crate) fn slot(number: usize) -> u16 {
        let update = |crc: u16, bit: u8| (crc << 1) ^ (if (crc >> 15) ^ u16::from(bit) == 1 { 0x1021 } else { 0 });
        (0..8).rev().map(|bit| TAGS[number] >> bit & 1).fold(0, update) % 16384
    }

    /// The bucket's name, and 8 more bytes of the subject's key: with the default prefix that is what Redis stores in 16
    /// bytes. Keys are keyed hashes, so nobody can read from them who it is, or choose one. Two subjects of a million share
    /// all 70 bits with a probability of 4 in 10^10; they would have their marks in common.
    pub(crate) fn entry(&self, key: &SubjectKey) -> Name {
        let mut name = self.bucket(key);
        name.extend_from_slice(&key.as_bytes()[1..9]);
        name
    }
}

/// Which of the 64 buckets is the subject's.
pub(crate) fn bucket_number(key: &SubjectKey) -> usize {
    usize::from(key.as_bytes()[0] % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says them.
        for (tag, slot) in [(b'a', 15495), (b'b', 3300), (b'c', 7365)] {
            let number = TAGS.iter().position(|known| *known == tag).unwrap();
            assert_eq!(KeySpace::slot(number), slot);
        }
    }
}
