//! Coalesced readings: one query in flight answers everybody who asked before it started.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ryw_core::Position;

use super::{Incarnation, Reading, Role};
use crate::sync::Mutex;
use tokio::sync::{Notify, oneshot};

/// Most requests that one node's readings may have waiting; further ones are not answered.
const MAX_WAITING: usize = 65_536;

/// Those who want to know a node's position as of now or later.
#[derive(Default)]
pub(super) struct Sampler {
    waiting: Mutex<Vec<Question>>,
    /// Tells the node's watcher that somebody is in a hurry.
    pub(super) hurry: Notify,
    /// Tells it that a read had to do without the node.
    pub(super) missed: Notify,
}

/// Somebody who wants to know.
#[derive(Debug)]
pub(super) struct Question {
    of: Asked,
    answer: oneshot::Sender<Position>,
}

/// Of those who wait it says nothing: a picture of all nodes has it.
impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

/// Whose position is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The node's, whatever has become of it.
    Node,
    /// The primary's: only as long as this node is that.
    Primary,
    /// That of one run of its server, which has served something: also when it should not have.
    Run(Incarnation),
    /// The same, and as a primary: it has committed something.
    Commit(Incarnation),
}

impl Question {
    /// Answers, if `reading` does. `fenced`: the node must not be used. `primary`: the node is the primary.
    pub(super) fn answer(self, reading: &Reading, fenced: bool, primary: bool) {
        let answered = match self.of {
            Asked::Node => !fenced,
            Asked::Primary => primary,
            Asked::Run(run) => run == reading.incarnation,
            Asked::Commit(run) => run == reading.incarnation && reading.role == Role::Primary,
        };
        if answered {
            // Whoever has left does not need to know.
            let _ = self.answer.send(reading.position);
        }
    }
}

/// A node's position, read after this was asked for. `None` when the reading failed.
#[derive(Debug)]
pub struct Sample(Option<oneshot::Receiver<Position>>);

impl Sampler {
    pub(super) fn sample(&self, of: Asked) -> Sample {
        let (answer, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= MAX_WAITING {
                return Sample::unavailable();
            }
            waiting.push(Question { of, answer });
        }
        self.hurry.notify_one();
        Sample(Some(receiver))
    }

    /// Everybody who asked until now: the reading that starts next is late enough for all of them.
    pub(super) fn take(&self) -> Vec<Question> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl Sample {
    pub(super) const fn unavailable() -> Self {
        Self(None)
    }

    /// The answer, if it is there.
    #[cfg(all(test, interleavings))]
    pub(super) fn answered(&mut self) -> Option<Position> {
        self.0.as_mut()?.try_recv().ok()
    }
}

impl Future for Sample {
    type Output = Option<Position>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(receiver) => Poll::Ready(ready!(Pin::new(receiver).poll(cx)).ok()),
        }
    }
}
