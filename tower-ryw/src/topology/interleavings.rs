//! Every interleaving of requests with the watcher of a node.

use std::sync::Arc as StdArc;

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};
use ryw_core::{ClusterId, Epoch, Position, SubjectKey, Tenant};

use super::{
    Reading, Role, WaitLimits,
    sampler::{Asked, Sampler},
    waiters::{Waiters, Who},
};
use crate::sync::interleave;

fn who() -> Who {
    Who { tenant: Tenant::default(), session: Some(SubjectKey::from_bytes([1; 16])) }
}

/// One query answers everybody who asked before it was sent: whoever has committed before is contained in it.
#[test]
fn a_sample_contains_what_was_committed_before_it_was_asked_for() {
    interleave(|| {
        let sampler = Arc::new(Sampler::default());
        let node = Arc::new(AtomicU64::new(0));
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let (sampler, node) = (Arc::clone(&sampler), Arc::clone(&node));
                thread::spawn(move || {
                    let committed = node.fetch_add(1, SeqCst) + 1;
                    (committed, sampler.sample(Asked::Node))
                })
            })
            .collect();
        let read = || {
            let asked = sampler.take();
            let position = Position::new(ClusterId::new(1), Epoch::new(1), node.load(SeqCst));
            let reading = Reading::new(Role::Primary, position);
            asked.into_iter().for_each(|question| question.answer(&reading, false, true));
        };
        read();
        let asked: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        // The watcher was told to hurry by those who came later.
        read();
        for (committed, mut sample) in asked {
            let answer = sample.answered().expect("nobody is left behind");
            assert!(answer.offset() >= committed, "{answer:?} does not contain {committed}");
        }
    });
}

/// In line first, then a second look: a report in between is not missed.
#[test]
fn nobody_sleeps_through_a_report() {
    interleave(|| {
        let waiters = StdArc::new(Waiters::new(WaitLimits::new()));
        let applied = Arc::new(AtomicU64::new(0));
        let requests: Vec<_> = [1, 2]
            .map(|needs| {
                let (waiters, applied) = (StdArc::clone(&waiters), Arc::clone(&applied));
                thread::spawn(move || {
                    let waiter = waiters.join(needs, who()).unwrap();
                    (applied.load(SeqCst) < needs).then_some(waiter)
                })
            })
            .into();
        for offset in [1, 2] {
            applied.store(offset, SeqCst);
            waiters.reached(offset);
        }
        for request in requests {
            if let Some(mut waiter) = request.join().unwrap() {
                assert!(waiter.is_woken(), "the node is there, and nobody said so");
            }
        }
        assert_eq!(waiters.len(), 0);
        waiters.assert_nobody();
    });
}

/// A place is given back once, whether its request was woken, or left, or both at a time.
#[test]
fn places_are_given_back_once() {
    interleave(|| {
        let waiters = StdArc::new(Waiters::new(WaitLimits::new().per_session(2)));
        let (first, second) = (waiters.join(1, who()).unwrap(), waiters.join(2, who()).unwrap());
        let leaving = thread::spawn(move || drop(first));
        let waking = {
            let waiters = StdArc::clone(&waiters);
            thread::spawn(move || waiters.all())
        };
        let third = waiters.join(3, who());
        drop(second);
        leaving.join().unwrap();
        waking.join().unwrap();
        drop(third);
        assert_eq!(waiters.len(), 0);
        waiters.assert_nobody();
        let again = [4, 5].map(|offset| waiters.join(offset, who()));
        assert!(again.iter().all(Option::is_some) && waiters.join(6, who()).is_none());
    });
}
