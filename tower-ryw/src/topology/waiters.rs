//! Requests that wait for a replica: ordered by the offset they need, woken by whoever reports it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// All waiting requests. An offset is only a hint for whom to wake: the woken decide again from the newest view.
#[derive(Debug)]
pub(super) struct Waiters {
    limit: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next_id: u64,
    by_offset: BTreeMap<(u64, u64), oneshot::Sender<()>>,
}

/// One waiting request. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    place: (u64, u64),
    waiters: Arc<Waiters>,
    woken: oneshot::Receiver<()>,
}

impl Waiters {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, queue: Mutex::default() }
    }

    /// A place in the queue, or `None` when it is full.
    pub(super) fn join(self: &Arc<Self>, offset: u64) -> Option<Waiter> {
        let (sender, woken) = oneshot::channel();
        let mut queue = self.queue.lock();
        if queue.by_offset.len() >= self.limit {
            return None;
        }
        let place = (offset, queue.next_id);
        queue.next_id += 1;
        queue.by_offset.insert(place, sender);
        Some(Waiter { place, waiters: Arc::clone(self), woken })
    }

    /// Wakes those who need no more than `offset`.
    pub(super) fn reached(&self, offset: u64) {
        let woken = {
            let mut queue = self.queue.lock();
            if queue.by_offset.first_key_value().is_none_or(|((needs, _), _)| *needs > offset) {
                return;
            }
            let later = queue.by_offset.split_off(&(offset.saturating_add(1), 0));
            std::mem::replace(&mut queue.by_offset, later)
        };
        // Outside of the lock: waking runs foreign code.
        wake(woken);
    }

    /// Wakes everybody: who may serve what has changed altogether.
    pub(super) fn all(&self) {
        let woken = std::mem::take(&mut self.queue.lock().by_offset);
        wake(woken);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().by_offset.len()
    }
}

fn wake(woken: BTreeMap<(u64, u64), oneshot::Sender<()>>) {
    for sender in woken.into_values() {
        // Whoever has left does not need to know.
        let _ = sender.send(());
    }
}

impl Waiter {
    /// Returns when the place was reached, or when things changed so much that a new decision is due.
    pub(crate) async fn woken(&mut self) {
        let _ = (&mut self.woken).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.queue.lock().by_offset.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(waiter: &mut Waiter) -> bool {
        waiter.woken.try_recv().is_ok()
    }

    #[test]
    fn wakes_those_who_need_no_more() {
        let waiters = Arc::new(Waiters::new(10));
        let [mut a, mut b, mut c] = [10, 20, 20].map(|offset| waiters.join(offset).unwrap());
        waiters.reached(9);
        assert!(!is_woken(&mut a));
        waiters.reached(10);
        assert!(is_woken(&mut a) && !is_woken(&mut b));
        waiters.reached(25);
        assert!(is_woken(&mut b) && is_woken(&mut c));
        assert_eq!(waiters.len(), 0);
        let mut last = waiters.join(u64::MAX).unwrap();
        waiters.reached(u64::MAX);
        assert!(
            is_woken(&mut last) || {
                waiters.all();
                is_woken(&mut last)
            }
        );
    }

    #[test]
    fn leaving_makes_room() {
        let waiters = Arc::new(Waiters::new(2));
        let (a, b) = (waiters.join(1), waiters.join(2));
        assert!(waiters.join(3).is_none(), "the queue is bounded");
        drop((a, b));
        assert_eq!(waiters.len(), 0);
        assert!(waiters.join(3).is_some());
    }
}
