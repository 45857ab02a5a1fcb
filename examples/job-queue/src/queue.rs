//! A queue in this process. A real one keeps the envelope's text beside the job.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use ryw_client::Envelope;
use tokio::sync::Notify;

/// Most jobs that wait.
const MAX_JOBS: usize = 10_000;

/// Jobs, at most one about each note.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<String>,
    envelopes: HashMap<String, Envelope>,
}

/// Too many jobs wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A job about `note`, which has to see what `envelope` says. If one waits already, it has to see both.
    pub(crate) fn push(&self, note: &str, envelope: &Envelope) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if let Some(known) = waiting.envelopes.get_mut(note) {
            known.join(envelope);
            return Ok(());
        }
        if waiting.order.len() >= MAX_JOBS {
            return Err(Full);
        }
        waiting.order.push_back(note.to_owned());
        waiting.envelopes.insert(note.to_owned(), envelope.clone());
        drop(waiting);
        self.added.notify_one();
        Ok(())
    }

    /// The next job, when there is one.
    pub(crate) async fn pop(&self) -> (String, Envelope) {
        loop {
            if let Some(job) = self.waiting.lock().pop() {
                return job;
            }
            self.added.notified().await;
        }
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<(String, Envelope)> {
        let note = self.order.pop_front()?;
        let envelope = self.envelopes.remove(&note).unwrap_or_default();
        Some((note, envelope))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

    use super::*;

    /// Tokens of two sessions: neither contains the other.
    const ONE: &str = "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAWsBVi3IhSdWAAAAAQAAAAAEAlwYAJGBkhn_aOa5535U6eiUnaY";
    const TWO: &str = "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAwAAAAAAAAABAAAAAQAAAAAAAABkAAAAAAAAAAEAAAAC__________8AAAAAAAAACQAAAAEAAAAAAAAABQPzCVrY--RHpWLjkXu5JmCW";

    fn envelope(token: &str) -> Envelope {
        format!("ryw1;;{token}").parse().unwrap()
    }

    #[tokio::test]
    async fn jobs_about_one_note_are_one_job_that_sees_what_all_have_to_see() {
        let queue = Queue::new();
        queue.push("a", &envelope(ONE)).unwrap();
        queue.push("b", &envelope(ONE)).unwrap();
        queue.push("a", &envelope(TWO)).unwrap();
        let (note, seen) = queue.pop().await;
        let text = seen.to_string();
        assert!(note == "a" && text.contains(ONE) && text.contains(TWO), "{text}");
        assert_eq!(queue.pop().await.0, "b");
        assert!(queue.waiting.lock().pop().is_none());
    }

    #[test]
    fn the_queue_is_bounded() {
        let queue = Queue::new();
        for note in 0..MAX_JOBS {
            queue.push(&note.to_string(), &envelope(ONE)).unwrap();
        }
        assert_eq!(queue.push("one more", &envelope(ONE)), Err(Full));
        assert_eq!(queue.push("0", &envelope(TWO)), Ok(()), "that one waits already");
    }
}
