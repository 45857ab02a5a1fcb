//! One watcher per node: a task with one connection, which reads the node's position for everybody.

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower_ryw::topology::{NodeState, Topology, Watch};

use crate::{
    connect::Target,
    error::innermost,
    reading::{Capture, Reader, Shown},
};

/// A node that takes longer than this to answer is down.
const READ_DEADLINE: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The watchers of one pool. Dropping it stops them.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Vec<JoinHandle<()>>);

impl Watchers {
    pub(crate) fn start(&mut self, watch: Watch, target: &Target, capture: Capture) {
        self.0.push(tokio::spawn(run(watch, target.clone(), capture)));
    }

    /// Returns when each node has been read once, or at the deadline.
    pub(crate) async fn ready(&self, topology: &Topology, deadline: Duration) {
        let deadline = Instant::now() + deadline;
        while topology.view().nodes().iter().any(|node| node.state() == NodeState::Unseen) && Instant::now() < deadline
        {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn run(mut watch: Watch, mut target: Target, capture: Capture) {
    target.config.application_name("tower-ryw watcher");
    let (mut retry, mut shown) = (FIRST_RETRY, Shown::default());
    loop {
        match connect(&target, capture).await {
            Ok(reader) => {
                retry = FIRST_RETRY;
                read(&mut watch, reader, &target, &mut shown).await;
            }
            // Once in each outage.
            Err(error) if retry == FIRST_RETRY => tracing::warn!(node = %target.name, error, "node can't be reached"),
            Err(error) => tracing::debug!(node = %target.name, error, "node can't be reached"),
        }
        // A turn that is not answered: the node is down, and whoever asked is told so.
        drop(watch.begin());
        sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn connect(target: &Target, capture: Capture) -> Result<Reader, String> {
    let connecting = timeout(READ_DEADLINE, async {
        let client = target.make.connect(target.config.clone()).await?;
        Reader::new(client, capture).await
    });
    match connecting.await {
        Ok(Ok(reader)) => Ok(reader),
        Ok(Err(error)) => Err(innermost(&error).to_string()),
        Err(late) => Err(late.to_string()),
    }
}

/// Reads until the connection fails. The first reading is due at once: who asked while there was no connection waits for it.
async fn read(watch: &mut Watch, mut reader: Reader, target: &Target, shown: &mut Shown) {
    let topology = watch.topology().clone();
    let mut is_first = true;
    loop {
        let turn = if std::mem::take(&mut is_first) { watch.begin() } else { watch.next().await };
        match timeout(READ_DEADLINE, reader.read(shown)).await {
            Ok(Ok(Some(reading))) if reading.is_known(topology.view().epoch()) => turn.report(reader.report(reading)),
            Ok(Ok(_)) => drop(turn),
            Ok(Err(error)) => {
                tracing::warn!(node = %target.name, error = %innermost(&error), "node can't be read");
                return;
            }
            Err(_) => {
                tracing::warn!(node = %target.name, "node does not answer in time");
                return;
            }
        }
    }
}
