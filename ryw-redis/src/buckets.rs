//! Buckets that were read a moment ago, so that a busy server is not asked for the same 64 again and again.
//!
//! A bucket does not change for those who use it while it is this young: whatever was joined after it was read is in an
//! entry that still lives. It only has to be known that the server has not been emptied since: for that there is a random
//! number on the server, the *witness*, which is read together with each bucket, and again whenever one is used.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::layout::{Bucket, Incarnation};

/// Far less than an entry lives.
const FRESH: Duration = Duration::from_millis(50);
/// Until the answer is there that goes with it.
const USABLE: Duration = Duration::from_millis(500);

/// What a server that was emptied has not got any more.
pub(crate) type Witness = [u8; 16];

/// The buckets of one server.
#[derive(Debug)]
pub(crate) struct Buckets {
    read: [Option<Read>; 64],
    /// What was asked before then is not kept.
    changed: [Option<Instant>; 64],
}

/// A bucket, and when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) asked: Instant,
    pub(crate) witness: Witness,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { read: [const { None }; 64], changed: [None; 64] }
    }
}

impl Buckets {
    pub(crate) fn get(&self, number: usize, incarnation: Incarnation, now: Instant) -> Option<Read> {
        let fresh =
            |read: &&Read| read.bucket.incarnation == incarnation && now.saturating_duration_since(read.asked) < FRESH;
        self.read[number].as_ref().filter(fresh).cloned()
    }

    /// One whose floor is unknown is not kept: a sample is about to change it.
    pub(crate) fn put(&mut self, number: usize, read: Read) {
        if !read.bucket.floor.is_unknown() && self.changed[number].is_none_or(|changed| changed <= read.asked) {
            self.read[number] = Some(read);
        }
    }

    /// It was changed from here.
    pub(crate) fn forget(&mut self, number: usize) {
        self.read[number] = None;
        self.changed[number] = Some(Instant::now());
    }

    pub(crate) fn clear(&mut self) {
        (0..64).for_each(|number| self.forget(number));
    }
}

impl Read {
    /// Whether an answer that has come by then can be read with it.
    pub(crate) fn is_usable(&self, then: Instant) -> bool {
        then.saturating_duration_since(self.asked) < USABLE
    }
}
