//! Every interleaving of requests on the mark map.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};
use ryw_core::{ClusterId, Epoch, MarkStore, Marks, Position, SubjectKey, Update};

use super::LocalStore;
use crate::sync::interleave;

fn key(n: u8) -> SubjectKey {
    SubjectKey::from_bytes([n; 16])
}

fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

fn join(store: &LocalStore, n: u8, marks: Marks) {
    store.join(&[key(n)], &Update { marks, hold: None }).now().unwrap().unwrap();
}

/// Its own marks and the floor's together.
fn load(store: &LocalStore, n: u8) -> Marks {
    let mut loaded = store.load(&[key(n)]).now().unwrap().unwrap();
    loaded.marks.join(&loaded.floor);
    loaded.marks
}

/// Loads, samples the primary where that is due, and settles.
fn find_out(store: &LocalStore, n: u8, primary: &AtomicU64) -> Marks {
    let loaded = store.load(&[key(n)]).now().unwrap().unwrap();
    let sample = at(primary.load(SeqCst));
    let mut marks = loaded.marks;
    marks.join(&loaded.floor);
    if !loaded.unsettled.is_empty() {
        store.settle(&loaded.unsettled, Some(sample)).now().unwrap().unwrap();
        marks = marks.settled_by(sample);
    }
    marks
}

/// Three sessions write into a store that has room for one, and read what they have written.
#[test]
fn a_mark_is_there_once_it_was_stored_whoever_evicts_it() {
    interleave(|| {
        let store = LocalStore::builder().capacity(1).build();
        let primary = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = [1, 2]
            .map(|n| {
                let (store, primary) = (store.clone(), Arc::clone(&primary));
                thread::spawn(move || {
                    let position = at(primary.fetch_add(1, SeqCst) + 1);
                    join(&store, n, Marks::at(position));
                    let marks = find_out(&store, n, &primary);
                    assert!(marks.is_unknown() || marks.covers(&Marks::at(position)), "{n}: {marks}");
                })
            })
            .into();
        find_out(&store, 3, &primary);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        for n in [1, 2] {
            let marks = load(&store, n);
            assert!(marks.is_unknown() || marks.positions()[0].offset() > 0, "{n}: {marks}");
        }
    });
}

/// A sample that was taken before a write does not stand for its unknown outcome, also where that was evicted meanwhile.
#[test]
fn an_unknown_outcome_is_not_settled_by_an_older_sample() {
    interleave(|| {
        let store = LocalStore::builder().capacity(1).build();
        let primary = Arc::new(AtomicU64::new(0));
        let writer = {
            let (store, primary) = (store.clone(), Arc::clone(&primary));
            thread::spawn(move || {
                primary.fetch_add(1, SeqCst);
                join(&store, 1, Marks::unknown());
                // Somebody else takes its place.
                join(&store, 2, Marks::none());
            })
        };
        find_out(&store, 1, &primary);
        writer.join().unwrap();
        let marks = load(&store, 1);
        assert!(marks.is_unknown() || marks.covers(&Marks::at(at(1))), "{marks}");
    });
}

/// An acknowledged loss takes what was told, and not what is written at the same time.
#[test]
fn an_acknowledgement_leaves_what_comes_in_between() {
    interleave(|| {
        let store = LocalStore::builder().capacity(4).build();
        join(&store, 1, Marks::at(at(5)));
        let writer = {
            let store = store.clone();
            thread::spawn(move || join(&store, 1, Marks::at(at(6))))
        };
        let told = load(&store, 1);
        store.acknowledge(&[key(1)], &told).now().unwrap().unwrap();
        writer.join().unwrap();
        let marks = load(&store, 1);
        assert!(told.covers(&Marks::at(at(6))) || marks.covers(&Marks::at(at(6))), "{told}, then {marks}");
    });
}

/// Two answer for the time before the start at once, one of whom has an entry: nobody is held to less than was there.
#[test]
fn the_start_is_answered_for_whoever_answers_first() {
    interleave(|| {
        let store = LocalStore::builder().capacity(2).build();
        // What an earlier process has written, and forgotten; all that this one knows of it.
        let primary = Arc::new(AtomicU64::new(5));
        join(&store, 1, Marks::at(at(1)));
        let others: Vec<_> = [1, 2]
            .map(|n| {
                let (store, primary) = (store.clone(), Arc::clone(&primary));
                thread::spawn(move || {
                    let marks = find_out(&store, n, &primary);
                    assert!(marks.is_unknown() || marks.covers(&Marks::at(at(5))), "{n}: {marks}");
                })
            })
            .into();
        others.into_iter().for_each(|other| other.join().unwrap());
        for n in [1, 2, 3] {
            let marks = load(&store, n);
            assert!(!marks.is_unknown() && marks.covers(&Marks::at(at(5))), "{n}: {marks}");
        }
    });
}
