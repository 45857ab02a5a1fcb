//! What a mark store did not take, on disk until it does: a write-ahead log with group commit.
//!
//! One task at a time writes, where blocking is allowed: whatever has come in while it synced goes to the disk together, with
//! the next sync. It ends when there is nothing left, so nobody has to stop it.

mod entry;
#[cfg(all(test, interleavings))]
mod interleavings;
mod log;

use std::{fmt, io, mem, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::sync::{Blocking, Mutex, MutexGuard};

pub(crate) use entry::{Entry, Hold, Undelivered};
pub(crate) use log::{Log, Recovered};

/// What waits to be written, in bytes; more is refused.
const QUEUE: usize = 1 << 20;
/// Between two tries to write to a disk that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// Locked by the one task that writes, and never by a request.
    log: Mutex<Log>,
    capacity: u64,
    live: Box<Live>,
}

/// Writes everything that is kept now, and says whether something could not be. `None` when nobody is left to ask.
type Live = dyn Fn(&mut Vec<u8>) -> Option<bool> + Send + Sync;

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    bytes: usize,
    /// The file is to be replaced by what is kept then.
    replace: bool,
    is_writing: bool,
    health: OutboxHealth,
    /// Nothing is written before then, after the disk has failed.
    retry_at: Option<Instant>,
}

struct Waiting {
    bytes: Vec<u8>,
    written: oneshot::Sender<()>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutboxHealth {
    pub(crate) bytes: u64,
    pub(crate) has_failed: bool,
}

impl Outbox {
    pub(crate) fn new(
        log: Log,
        capacity: u64,
        live: impl Fn(&mut Vec<u8>) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        let health = OutboxHealth { bytes: log.bytes(), has_failed: false };
        let queue = Mutex::new(Queue { health, ..Queue::default() });
        Self(Arc::new(Inner { queue, log: Mutex::new(log), capacity, live: Box::new(live) }))
    }

    pub(crate) fn health(&self) -> OutboxHealth {
        self.0.queue.lock().health
    }

    /// Gets in line to be written; what is written has to be among what is kept already. A future that is dropped changes
    /// nothing. The answer is whether it is on the disk.
    pub(crate) fn append(&self, entry: &Undelivered, deadline: Duration) -> impl Future<Output = bool> + Send + use<> {
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        let (written, answer) = oneshot::channel();
        let mut queue = self.0.queue.lock();
        if queue.bytes + bytes.len() <= QUEUE {
            queue.bytes += bytes.len();
            queue.waiting.push(Waiting { bytes, written });
        }
        Inner::write(&self.0, queue);
        async move { matches!(timeout(deadline, answer).await, Ok(Ok(()))) }
    }

    /// Replaces the file by what is kept then, in the background.
    pub(crate) fn replace(&self) {
        let mut queue = self.0.queue.lock();
        queue.replace = true;
        Inner::write(&self.0, queue);
    }
}

/// The one task that writes. Where it is cut short, whoever waits is told, and the next one can start.
struct Writer(Option<Arc<Inner>>);

impl Writer {
    fn run(mut self) {
        while self.0.as_ref().is_some_and(|inner| inner.write_batch()) {}
        self.0 = None;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(inner) = &self.0 {
            let mut queue = inner.queue.lock();
            queue.is_writing = false;
            queue.give_up();
        }
    }
}

impl Queue {
    /// Whoever waits is told by the end of its sender.
    fn give_up(&mut self) {
        (self.bytes, self.waiting) = (0, Vec::new());
    }
}

impl Inner {
    fn write(inner: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if queue.is_writing {
            return;
        }
        let Some(blocking) = Blocking::allowed() else {
            queue.give_up();
            return;
        };
        queue.is_writing = true;
        drop(queue);
        let writer = Writer(Some(Arc::clone(inner)));
        // Ends once nothing waits. Where the runtime ends first, it is dropped without having run.
        blocking.run(move || writer.run());
    }

    /// Whether there was anything to write.
    fn write_batch(&self) -> bool {
        let (waiting, replace, may_try) = {
            let mut queue = self.queue.lock();
            // Looked at under the lock that others get in line with: nobody is left behind.
            if queue.waiting.is_empty() && !queue.replace {
                queue.is_writing = false;
                return false;
            }
            queue.bytes = 0;
            let may_try = queue.retry_at.is_none_or(|at| at <= Instant::now());
            (mem::take(&mut queue.waiting), mem::take(&mut queue.replace), may_try)
        };
        // Dropped, which tells those who wait.
        if !may_try {
            return true;
        }
        let mut log = self.log.lock();
        let written = self.commit(&mut log, &waiting, replace);
        let mut queue = self.queue.lock();
        queue.health = OutboxHealth { bytes: log.bytes(), has_failed: written.is_err() };
        queue.retry_at = written.is_err().then(|| Instant::now() + PAUSE);
        drop((queue, log));
        match written {
            Ok(()) => waiting.into_iter().for_each(|one| {
                // Whoever has asked may be gone.
                let _ = one.written.send(());
            }),
            Err(error) => tracing::error!(%error, "the outbox could not be written"),
        }
        true
    }

    fn commit(&self, log: &mut Log, waiting: &[Waiting], replace: bool) -> io::Result<()> {
        let more: u64 = waiting.iter().map(|one| one.bytes.len() as u64).sum();
        let mut bytes = Vec::new();
        if log.is_broken() || replace && !log.is_empty() || log.bytes() + more > self.capacity {
            // Whatever waits is among what is kept, or has been delivered.
            match (self.live)(&mut bytes) {
                Some(in_doubt) => {
                    if in_doubt {
                        Entry::write_gap(&mut bytes);
                    }
                    return log.rewrite(&bytes);
                }
                None if log.is_broken() => return Err(io::Error::other("it has failed before")),
                None => bytes.clear(),
            }
        }
        waiting.iter().for_each(|one| bytes.extend(&one.bytes));
        if bytes.is_empty() { Ok(()) } else { log.append(&bytes) }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("health", &self.health()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{Marks, SubjectKey};
    use tempfile::TempDir;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn outbox() -> (TempDir, Outbox) {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(directory.path()).unwrap();
        (directory, Outbox::new(log, 1 << 30, |_| None))
    }

    fn entry(subjects: usize) -> Undelivered {
        let keys = vec![SubjectKey::from_bytes([7; 16]); subjects];
        Undelivered { keys, marks: Marks::unknown(), since: Duration::ZERO, hold: None }
    }

    fn found(directory: &TempDir, outbox: Outbox) -> usize {
        drop(outbox);
        loop {
            // The task that wrote last may be about to let go of it.
            match Log::open(directory.path()) {
                Ok((_, recovered)) => return recovered.entries.len(),
                Err(error) => assert_eq!(error.kind(), crate::error::OutboxErrorKind::InUse),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::await_holding_lock, reason = "a slow disk: only the task that writes takes this lock")]
    async fn more_than_can_wait_is_refused_and_what_waits_is_written_together() {
        let (directory, outbox) = outbox();
        let mut bytes = Vec::new();
        entry(1000).write(&mut bytes);
        let size = bytes.len();
        let disk = outbox.0.log.lock();
        // The first one is being written, and the disk is slow.
        let first = outbox.append(&entry(1), SOON);
        while !outbox.0.queue.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        let waiting: Vec<_> = (0..100).map(|_| outbox.append(&entry(1000), SOON)).collect();
        drop(disk);
        assert!(first.await);
        let mut written = 0;
        for one in waiting {
            written += usize::from(one.await);
        }
        assert_eq!(written, QUEUE / size, "what fits, and nothing more");
        assert!(outbox.append(&entry(1), SOON).await, "there is room again");
        while outbox.0.queue.lock().is_writing {
            tokio::task::yield_now().await;
        }
        assert_eq!(found(&directory, outbox), written + 2);
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "a slow disk: only the task that writes takes this lock")]
    async fn a_disk_that_is_late_promises_nothing_and_keeps_it_all_the_same() {
        let (directory, outbox) = outbox();
        let disk = outbox.0.log.lock();
        assert!(!outbox.append(&entry(1), Duration::from_millis(20)).await);
        drop(disk);
        assert!(outbox.append(&entry(1), SOON).await);
        while outbox.0.queue.lock().is_writing {
            tokio::task::yield_now().await;
        }
        assert_eq!(found(&directory, outbox), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_changes_nothing() {
        let (directory, outbox) = outbox();
        drop(outbox.append(&entry(1), SOON));
        assert!(outbox.append(&entry(1), SOON).await);
        while outbox.0.queue.lock().is_writing {
            tokio::task::yield_now().await;
        }
        assert_eq!(found(&directory, outbox), 2);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn a_file_that_could_not_be_written_is_replaced_and_not_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.fill_disk().unwrap();
        let outbox = Outbox::new(log, 1 << 30, |bytes| {
            (0..3).for_each(|_| entry(1).write(bytes));
            Some(false)
        });
        assert!(!outbox.append(&entry(1), SOON).await);
        assert!(outbox.health().has_failed);
        assert!(!outbox.append(&entry(1), SOON).await, "not tried again at once");
        tokio::time::sleep(PAUSE).await;
        assert!(outbox.append(&entry(1), SOON).await);
        assert!(!outbox.health().has_failed);
        while outbox.0.queue.lock().is_writing {
            tokio::task::yield_now().await;
        }
        assert_eq!(found(&directory, outbox), 3, "all that is kept, once");
    }

    #[test]
    fn nobody_waits_for_a_runtime_that_is_not_there() {
        let (_directory, outbox) = outbox();
        let without = outbox.append(&entry(1), SOON);
        assert!(outbox.0.queue.lock().waiting.is_empty());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(!runtime.block_on(without));
        assert!(runtime.block_on(async { outbox.append(&entry(1), SOON).await }));
    }
}
