//! Readers beside writers, with all the threads there are.

#![cfg(not(interleavings))]

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

use ryw_core::{ClusterId, Epoch, Loaded, Mark, MarkStore, Marks, Position, SubjectKey, Update};

use super::LocalStore;

const SUBJECTS: u64 = 8;
const WRITES: u64 = 500_000;
const ADDED: u64 = 20_000;

/// All of the same part.
fn key(n: u64) -> SubjectKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) & !(0x3F << 48)).to_le_bytes());
    bytes[8..].copy_from_slice(&n.to_le_bytes());
    SubjectKey::from_bytes(bytes)
}

/// Both halves of the offset change with each write.
fn position(cluster: u64, write: u64) -> Position {
    Position::new(ClusterId::new(cluster), Epoch::new(1), write << 32 | write)
}

/// Nothing was written before it was made, and so many fit into each part.
fn store(capacity: usize) -> LocalStore {
    let store = LocalStore::builder().capacity(64 * capacity).build();
    let unsettled = load(&store, 0).unsettled;
    store.settle(&unsettled, None).now().unwrap().unwrap();
    store
}

fn load(store: &LocalStore, n: u64) -> Loaded {
    store.load(&[key(n)]).now().unwrap().unwrap()
}

fn join(store: &LocalStore, n: u64, marks: Marks) {
    store.join(&[key(n)], &Update { marks, hold: None }).now().unwrap().unwrap();
}

/// One writer for each half of the subjects, who write into so many clusters. Whoever reads finds at least what had been written before,
/// and nothing that never was.
fn read_beside_writers(capacity: usize, clusters: u64) {
    let store = store(capacity);
    let written: Vec<AtomicU64> = (0..SUBJECTS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicU64::new(0);
    thread::scope(|threads| {
        for half in 0..2 {
            let (store, written, done) = (&store, &written, &done);
            threads.spawn(move || {
                for write in 1..=WRITES {
                    let n = write % (SUBJECTS / 2) * 2 + half;
                    join(store, n, Marks::at(position(n % clusters, write)));
                    written[n as usize].store(write, SeqCst);
                }
                done.fetch_add(1, SeqCst);
            });
        }
        for start in 0..2 {
            let (store, written, done) = (&store, &written, &done);
            threads.spawn(move || {
                for n in (start..).map(|n| n % SUBJECTS) {
                    let over = done.load(SeqCst) == 2;
                    let before = written[n as usize].load(SeqCst);
                    let mut loaded = load(store, n);
                    loaded.marks.join(&loaded.floor);
                    let marks = loaded.marks;
                    let own = marks.positions().iter().find(|own| own.cluster() == ClusterId::new(n % clusters));
                    let write = own.map_or(0, |own| own.offset() >> 32);
                    assert!(marks.is_unknown() || write >= before, "{n} wrote {before} and is held to {marks}");
                    assert!(own.is_none_or(|own| *own == position(n % clusters, write)), "nobody wrote {own:?}");
                    if over && n == start {
                        break;
                    }
                }
            });
        }
    });
}

/// One adds subjects, whose entries take chunks and buckets; whoever reads finds each that is there.
fn read_beside_growth(clusters: u64) {
    let store = store(2 * ADDED as usize);
    let added = AtomicU64::new(0);
    let marks = |n| (0..clusters).map(|cluster| Mark::At(position(cluster, n + 1))).collect::<Marks>();
    thread::scope(|threads| {
        for seed in 1..3 {
            let (store, added) = (&store, &added);
            threads.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                loop {
                    let there = added.load(SeqCst);
                    let n = rng.u64(0..=there);
                    let loaded = load(store, n);
                    assert!(n == there || loaded.has_entry && loaded.marks == marks(n), "{n} of {there}: {loaded:?}");
                    if there == ADDED {
                        break;
                    }
                }
            });
        }
        for n in 0..ADDED {
            join(&store, n, marks(n));
            added.store(n + 1, SeqCst);
        }
    });
    assert_eq!(store.len(), ADDED as usize);
}

#[test]
fn readers_see_what_was_written_while_others_are_written() {
    read_beside_writers(1000, SUBJECTS);
}

#[test]
fn readers_see_what_was_written_while_others_are_forgotten() {
    read_beside_writers(4, 1);
}

#[test]
fn readers_find_everybody_while_there_are_more_and_more() {
    read_beside_growth(1);
}

#[test]
fn readers_find_everybody_whose_marks_are_several() {
    read_beside_growth(2);
}
