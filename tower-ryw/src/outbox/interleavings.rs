//! Every interleaving of requests with the one task that writes.

use std::{fs, path::Path, time::Duration};

use loom::thread;
use ryw_core::{Marks, SubjectKey};
use tempfile::TempDir;

use super::{Log, Outbox, Undelivered};
use crate::sync::interleave;

/// Syncing costs nothing there.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn entry(n: u8) -> Undelivered {
    let keys = vec![SubjectKey::from_bytes([n; 16])];
    Undelivered { keys, marks: Marks::unknown(), since: Duration::ZERO, hold: None }
}

fn model(scenario: impl Fn(&Path) + Sync + Send + 'static) {
    let directory = directory();
    interleave(move || {
        // Each run begins with an empty file.
        let _ = fs::remove_file(directory.path().join("log"));
        scenario(directory.path());
    });
}

/// Whoever gets in line is written, by the task that runs or by one that is begun for it, and the cursor is at the end.
#[test]
fn nobody_is_left_in_line() {
    model(|path| {
        let (log, _) = Log::open(path).unwrap();
        let outbox = Outbox::new(log, 1 << 30, |_| None);
        let requests: Vec<_> = [1, 2]
            .map(|n| {
                let outbox = outbox.clone();
                thread::spawn(move || drop(outbox.append(&entry(n), Duration::ZERO)))
            })
            .into();
        requests.into_iter().for_each(|request| request.join().unwrap());
        // The task may still run: there is nothing to wait for but its end.
        while outbox.0.queue.lock().is_writing {
            thread::yield_now();
        }
        assert!(outbox.0.queue.lock().waiting.is_empty(), "somebody waits, and nobody writes");
        let _end = outbox.0.log.lock();
        assert_eq!(fs::metadata(path.join("log")).unwrap().len(), outbox.health().bytes);
        assert_eq!(outbox.health().bytes, 8 + 2 * size());
    });
}

fn size() -> u64 {
    let mut bytes = Vec::new();
    entry(1).write(&mut bytes);
    bytes.len() as u64
}
