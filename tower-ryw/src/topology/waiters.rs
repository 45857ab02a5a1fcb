//! Requests that wait for a replica: ordered by the offset they need, woken by whoever reports it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use ryw_core::{SubjectKey, Tenant};
use tokio::sync::oneshot;

use crate::sync::Mutex;

/// How many requests may wait for a replica at a time; further ones don't wait.
///
/// ```
/// use tower_ryw::topology::{Topology, WaitLimits};
/// let topology = Topology::with_limits(WaitLimits::new().per_session(8));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    total: usize,
    per_tenant: usize,
    per_session: usize,
}

impl WaitLimits {
    /// The defaults: 10 000 in all, 2 500 of one tenant, 64 of one session.
    #[must_use]
    pub const fn new() -> Self {
        Self { total: 10_000, per_tenant: 2_500, per_session: 64 }
    }

    /// Of all requests. Default: 10 000.
    #[must_use]
    pub const fn total(mut self, requests: usize) -> Self {
        self.total = requests;
        self
    }

    /// Of one tenant's requests. Default: 2 500.
    #[must_use]
    pub const fn per_tenant(mut self, requests: usize) -> Self {
        self.per_tenant = requests;
        self
    }

    /// Of one session's requests. Default: 64.
    #[must_use]
    pub const fn per_session(mut self, requests: usize) -> Self {
        self.per_session = requests;
        self
    }
}

impl Default for WaitLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// On whose behalf a request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) tenant: Tenant,
    pub(crate) session: Option<SubjectKey>,
}

/// All waiting requests. An offset is only a hint for whom to wake: the woken decide again from the newest view.
#[derive(Debug)]
pub(super) struct Waiters {
    limits: WaitLimits,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next_id: u64,
    by_offset: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    /// Those that have not left yet, woken or not.
    of_tenant: HashMap<Tenant, usize>,
    of_session: HashMap<SubjectKey, usize>,
}

/// One waiting request. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    place: (u64, u64),
    who: Who,
    waiters: Arc<Waiters>,
    woken: oneshot::Receiver<()>,
}

impl Waiters {
    pub(super) fn new(limits: WaitLimits) -> Self {
        Self { limits, queue: Mutex::default() }
    }

    /// A place in the queue, or `None` when there are too many.
    pub(super) fn join(self: &Arc<Self>, offset: u64, who: Who) -> Option<Waiter> {
        let (sender, woken) = oneshot::channel();
        let mut queue = self.queue.lock();
        let WaitLimits { total, per_tenant, per_session } = self.limits;
        let of_tenant = queue.of_tenant.get(&who.tenant).copied().unwrap_or_default();
        let of_session = who.session.as_ref().and_then(|session| queue.of_session.get(session)).copied();
        if queue.by_offset.len() >= total || of_tenant >= per_tenant || of_session.is_some_and(|n| n >= per_session) {
            return None;
        }
        *queue.of_tenant.entry(who.tenant.clone()).or_default() += 1;
        if let Some(session) = who.session {
            *queue.of_session.entry(session).or_default() += 1;
        }
        let place = (offset, queue.next_id);
        queue.next_id += 1;
        queue.by_offset.insert(place, sender);
        Some(Waiter { place, who, waiters: Arc::clone(self), woken })
    }

    /// Wakes those who need no more than `offset`.
    pub(super) fn reached(&self, offset: u64) {
        let woken = {
            let mut queue = self.queue.lock();
            if queue.by_offset.first_key_value().is_none_or(|((needs, _), _)| *needs > offset) {
                return;
            }
            let later = match offset.checked_add(1) {
                Some(next) => queue.by_offset.split_off(&(next, 0)),
                None => BTreeMap::new(),
            };
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

    #[cfg(all(test, interleavings))]
    pub(super) fn assert_nobody(&self) {
        let queue = self.queue.lock();
        assert!(queue.of_session.is_empty() && queue.of_tenant.is_empty(), "{queue:?}");
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

#[cfg(all(test, interleavings))]
impl Waiter {
    pub(super) fn is_woken(&mut self) -> bool {
        self.woken.try_recv().is_ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queue = self.waiters.queue.lock();
        queue.by_offset.remove(&self.place);
        leave(&mut queue.of_tenant, &self.who.tenant);
        if let Some(session) = &self.who.session {
            leave(&mut queue.of_session, session);
        }
    }
}

fn leave<K: Hash + Eq>(counts: &mut HashMap<K, usize>, who: &K) {
    if let Some(count) = counts.get_mut(who) {
        *count -= 1;
        if *count == 0 {
            counts.remove(who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(session: u8) -> Who {
        Who { tenant: Tenant::default(), session: Some(SubjectKey::from_bytes([session; 16])) }
    }

    fn is_woken(waiter: &mut Waiter) -> bool {
        waiter.woken.try_recv().is_ok()
    }

    #[test]
    fn wakes_those_who_need_no_more() {
        let waiters = Arc::new(Waiters::new(WaitLimits::new()));
        let [mut a, mut b, mut c] = [10, 20, 20].map(|offset| waiters.join(offset, who(1)).unwrap());
        waiters.reached(9);
        assert!(!is_woken(&mut a));
        waiters.reached(10);
        assert!(is_woken(&mut a) && !is_woken(&mut b));
        waiters.reached(25);
        assert!(is_woken(&mut b) && is_woken(&mut c));
        assert_eq!(waiters.len(), 0);
        let mut last = waiters.join(u64::MAX, who(1)).unwrap();
        waiters.reached(u64::MAX - 1);
        assert!(!is_woken(&mut last));
        waiters.reached(u64::MAX);
        assert!(is_woken(&mut last) && waiters.len() == 0);
    }

    #[test]
    fn leaving_makes_room() {
        let waiters = Arc::new(Waiters::new(WaitLimits::new().total(2)));
        let (a, b) = (waiters.join(1, who(1)), waiters.join(2, who(2)));
        assert!(waiters.join(3, who(3)).is_none(), "the queue is bounded");
        drop((a, b));
        assert_eq!(waiters.len(), 0);
        assert!(waiters.join(3, who(3)).is_some());
    }

    #[test]
    fn nobody_takes_all_the_places() {
        let waiters = Arc::new(Waiters::new(WaitLimits::new().per_tenant(3).per_session(2)));
        let of = |session| waiters.join(1, who(session));
        let (first, second) = (of(1), of(1));
        assert!(first.is_some() && second.is_some() && of(1).is_none(), "two of one session");
        let third = of(2);
        assert!(third.is_some() && of(3).is_none(), "three of one tenant");
        let other = Who { tenant: "other".parse().unwrap(), session: None };
        assert!(waiters.join(1, other).is_some());
        // Also once they were woken: a place is given back by leaving.
        waiters.all();
        assert!(of(3).is_none());
        drop((first, second, third));
        assert!(of(1).is_some());
        assert!(waiters.queue.lock().of_session.is_empty() && waiters.queue.lock().of_tenant.is_empty());
    }
}
