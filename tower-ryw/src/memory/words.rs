//! Numbers that are read while they are being changed. What a reader makes of several of them, the shard's version tells.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ryw_core::{ClusterId, Epoch, SubjectKey};

use super::tick::Tick;

/// A number of 32 bits.
#[derive(Debug, Default)]
pub(super) struct Word(AtomicU32);

/// A number of 64 bits.
#[derive(Debug, Default)]
pub(super) struct Long(AtomicU64);

/// A key.
#[derive(Debug, Default)]
pub(super) struct KeyWords([Word; 4]);

/// A history: the reign of one primary.
#[derive(Debug, Default)]
pub(super) struct BranchWords {
    cluster: Long,
    epoch: Word,
}

impl Word {
    pub(super) fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    pub(super) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }

    pub(super) fn tick(&self) -> Tick {
        Tick(self.get())
    }
}

impl Long {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl KeyWords {
    pub(super) fn get(&self) -> SubjectKey {
        let [a, b, c, d] = &self.0;
        let half = |low: &Word, high: &Word| u64::from(low.get()) | u64::from(high.get()) << 32;
        SubjectKey::from_bytes((u128::from(half(a, b)) | u128::from(half(c, d)) << 64).to_le_bytes())
    }

    pub(super) fn set(&self, key: &SubjectKey) {
        for (word, bytes) in self.0.iter().zip(key.as_bytes().as_chunks().0) {
            word.set(u32::from_le_bytes(*bytes));
        }
    }
}

impl BranchWords {
    pub(super) fn get(&self) -> (ClusterId, Epoch) {
        (ClusterId::new(self.cluster.get()), Epoch::new(self.epoch.get()))
    }

    pub(super) fn set(&self, (cluster, epoch): (ClusterId, Epoch)) {
        self.cluster.set(cluster.get());
        self.epoch.set(epoch.get());
    }
}
