//! How subjects are named in Redis.

use ryw_core::SubjectKey;

/// Parts of all subjects. Entry and bucket of a subject are in one slot of a Redis Cluster, and buckets are spread over
/// all slots.
pub(crate) const BUCKETS: u32 = 256;

/// The names under one prefix.
#[derive(Clone, Debug)]
pub(crate) struct KeySpace {
    prefix: String,
}

impl KeySpace {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// `ryw{7f}`, of all subjects whose key begins with that byte.
    pub(crate) fn bucket(&self, key: &SubjectKey) -> Vec<u8> {
        const { assert!(BUCKETS == 256, "one byte") };
        format!("{}{{{:02x}}}", self.prefix, key.as_bytes()[0]).into_bytes()
    }

    /// The bucket's name, and the other bytes of the subject's key. Keys are keyed hashes, so nobody can read from them who
    /// it is.
    pub(crate) fn entry(&self, key: &SubjectKey) -> Vec<u8> {
        let mut name = self.bucket(key);
        name.extend(&key.as_bytes()[1..]);
        name
    }
}
