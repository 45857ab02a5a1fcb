//! The watcher's side: when a node is read, and what becomes of the answer.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

use super::{
    NodeState, Reading, Topology, apply,
    sampler::{Question, Sampler},
};

/// How many readings follow each other without a pause once requests wait for a node: most waits end within them.
pub(super) const BURST: u32 = 50;
/// How often a node is read while requests go on waiting.
const HURRIED_PAUSE: Duration = Duration::from_millis(1);

/// One node's side of the topology, held by its watcher. Dropping it takes the node out of service.
#[derive(Debug)]
pub struct Watch {
    topology: Topology,
    node: usize,
    sampler: Arc<Sampler>,
    pause: Duration,
    /// Readings in a row while somebody waits.
    hurried: u32,
    /// When the last reading was begun.
    begun: Option<Instant>,
}

/// One reading that is under way. Dropping it without a report means that it failed.
#[derive(Debug)]
pub struct Turn<'a> {
    watch: &'a Watch,
    started: Instant,
    asked: Vec<Question>,
    reported: bool,
}

impl Watch {
    pub(super) fn new(topology: Topology, node: usize, sampler: Arc<Sampler>) -> Self {
        Self { topology, node, sampler, pause: Duration::from_millis(20), hurried: 0, begun: None }
    }

    /// How long to rest between readings when nobody asks for one. Default: 20 ms.
    #[must_use]
    pub const fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Waits until the next reading is due: after the pause, or at once when it is the first, or when somebody asks for a
    /// [`Sample`](super::Sample) or waits for a replica. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Turn<'_> {
        self.hurried = if self.topology.waiting() > 0 { self.hurried.saturating_add(1) } else { 0 };
        let pause = match self.hurried {
            0 if self.begun.is_some() => self.pause,
            0 => Duration::ZERO,
            1..=BURST => Duration::ZERO,
            _ => HURRIED_PAUSE.min(self.pause),
        };
        if pause.is_zero() {
            // Not a sleep, which would last until the timer's next tick.
            yield_now().await;
        } else {
            let (sampler, begun) = (&self.sampler, self.begun);
            let missed = async {
                sampler.missed.notified().await;
                if let Some(begun) = begun {
                    sleep_until(begun + HURRIED_PAUSE).await;
                }
            };
            // In the same order always, so that a simulation can be repeated.
            tokio::select! {
                biased;
                () = sampler.hurry.notified() => {}
                () = missed => {}
                () = sleep(pause) => {}
            }
        }
        self.begin()
    }

    /// Starts a reading now. Everything that was asked for until now is answered by it, so the query must not have
    /// been sent yet.
    pub fn begin(&mut self) -> Turn<'_> {
        let started = Instant::now();
        self.begun = Some(started);
        Turn { started, asked: self.sampler.take(), watch: self, reported: false }
    }

    /// The topology this node belongs to.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }
}

impl Turn<'_> {
    /// What the node answered.
    pub fn report(mut self, reading: Reading) {
        self.reported = true;
        let (node, started) = (self.watch.node, self.started);
        let mut usable = false;
        self.watch.topology.update(|view, writer| {
            usable = apply(view, writer, node, started, &reading);
        });
        let view = self.watch.topology.view();
        if usable {
            let (fenced, primary) = (view.nodes[node].state == NodeState::Fenced, view.primary == Some(node));
            self.asked.drain(..).for_each(|question| question.answer(&reading, fenced, primary));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.reported {
            let node = self.watch.node;
            self.watch.topology.update(|view, _| view.nodes[node].state = NodeState::Down);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let node = self.node;
        drop(self.sampler.take());
        self.topology.update(|view, _| view.nodes[node].state = NodeState::Down);
    }
}
