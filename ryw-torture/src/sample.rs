//! How far behind the standbys are, and who served, as time goes on: for the picture.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, NoTls, types::PgLsn};

use crate::load::{Shared, Sums};

/// Between two samples.
const EVERY: Duration = Duration::from_millis(250);
/// For a server to answer.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many of the primary's positions are remembered: two minutes.
const REMEMBERED: usize = 480;

/// One moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Since the run began.
    pub(crate) at: Duration,
    /// How late each standby is; `None` for a server that does not answer. The primary is not in it.
    pub(crate) lag: BTreeMap<String, Option<Duration>>,
    pub(crate) sums: Sums,
}

/// Takes samples until it is dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    _task: JoinSet<()>,
}

impl Sampler {
    /// Of these servers, given by name and URL.
    pub(crate) fn start(nodes: Vec<(String, String)>, load: Arc<Shared>) -> Self {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let mut task = JoinSet::new();
        task.spawn(watch(nodes, load, Arc::clone(&samples)));
        Self { samples, _task: task }
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().clone()
    }
}

struct Node {
    name: String,
    url: String,
    client: Option<Client>,
}

async fn watch(nodes: Vec<(String, String)>, load: Arc<Shared>, samples: Arc<Mutex<Vec<Sample>>>) {
    let start = Instant::now();
    let mut nodes: Vec<Node> = nodes.into_iter().map(|(name, url)| Node { name, url, client: None }).collect();
    // Connections end with this.
    let mut connections = JoinSet::new();
    let mut written: Vec<(Instant, u64)> = Vec::new();
    loop {
        let mut readings = Vec::new();
        for node in &mut nodes {
            let reading = timeout(PATIENCE, node.read(&mut connections)).await.ok().flatten();
            if reading.is_none() {
                node.client = None;
            }
            readings.push((node.name.clone(), reading));
        }
        let now = Instant::now();
        let primary = readings.iter().find_map(|(name, reading)| match reading {
            Some((false, end)) => Some((name.clone(), *end)),
            _ => None,
        });
        if let Some((_, end)) = primary {
            // After a failover that lost something, the log begins anew further back.
            written.retain(|(_, before)| *before <= end);
            written.push((now, end));
            let surplus = written.len().saturating_sub(REMEMBERED);
            written.drain(..surplus);
        }
        let primary = primary.map(|(name, _)| name);
        let standbys = readings.into_iter().filter(|(name, _)| Some(name) != primary.as_ref());
        let lag = standbys.map(|(name, reading)| (name, reading.map(|(_, applied)| lag(&written, applied, now))));
        let (lag, sums) = (lag.collect(), load.stats.sums());
        samples.lock().push(Sample { at: start.elapsed(), lag, sums });
        while connections.try_join_next().is_some() {}
        sleep(EVERY).await;
    }
}

/// Since when the primary has had something that is not applied.
fn lag(written: &[(Instant, u64)], applied: u64, now: Instant) -> Duration {
    let first = written.partition_point(|(_, end)| *end <= applied);
    written.get(first).map_or(Duration::ZERO, |(at, _)| now.duration_since(*at))
}

impl Node {
    /// Whether it is a standby, and up to where it has applied or written.
    async fn read(&mut self, connections: &mut JoinSet<()>) -> Option<(bool, u64)> {
        if self.client.is_none() {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.ok()?;
            connections.spawn(async move { drop(connection.await) });
            self.client = Some(client);
        }
        let sql = "select pg_is_in_recovery(), case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
                   else pg_current_wal_flush_lsn() end";
        let row = self.client.as_ref()?.query_one(sql, &[]).await.ok()?;
        let (standby, at): (bool, Option<PgLsn>) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
        Some((standby, at?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_what_is_missing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let written = [(at(1), 10), (at(2), 20), (at(3), 30)];
        for (applied, seconds) in [(5, 3), (10, 2), (29, 1), (30, 0), (31, 0)] {
            assert_eq!(lag(&written, applied, at(4)), Duration::from_secs(seconds), "{applied}");
        }
    }
}
