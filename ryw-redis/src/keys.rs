//! How subjects are named in Redis.

use ryw_core::SubjectKey;

/// One character for each part of all subjects: as many parts as there are characters.
const TAGS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

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
    pub(crate) fn bucket(&self, key: &SubjectKey) -> Vec<u8> {
        let tag = TAGS[usize::from(key.as_bytes()[0] % 64)];
        let mut name = self.prefix.clone().into_bytes();
        name.extend([b'{', tag, b'}']);
        name
    }

    /// The bucket's name, and 8 more bytes of the subject's key: with the default prefix that is what Redis stores in 16
    /// bytes. Keys are keyed hashes, so nobody can read from them who it is, or choose one. Two subjects of a million share
    /// all 70 bits with a probability of 4 in 10^10; they would have their marks in common.
    pub(crate) fn entry(&self, key: &SubjectKey) -> Vec<u8> {
        let mut name = self.bucket(key);
        name.extend(&key.as_bytes()[1..9]);
        name
    }
}
