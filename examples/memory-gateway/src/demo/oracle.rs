//! Somebody who knows at every moment what every replica shows, and so how many reads replicas could have served.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_postgres::tokio_postgres::{self, NoTls, types::PgLsn};
use tokio::{task::JoinHandle, time::Instant};

use super::load::Read;
use crate::backend::{Backend, BackendError};

/// Watches each replica on its own, apart from what tower-ryw watches.
#[derive(Debug)]
pub(crate) struct Oracle {
    timelines: Arc<Vec<Mutex<Timeline>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// When a replica reached which offset, in order of both.
type Timeline = Vec<(Instant, u64)>;

/// What the oracle has seen.
#[derive(Debug)]
pub(crate) struct Timelines(Vec<Timeline>);

impl Oracle {
    pub(crate) async fn start(backend: &Backend) -> Result<Self, BackendError> {
        let replicas = backend.replicas();
        let timelines: Arc<Vec<Mutex<Timeline>>> = Arc::new(replicas.iter().map(|_| Mutex::default()).collect());
        let mut tasks = Vec::new();
        match backend {
            Backend::Embedded(store) => {
                for (index, name) in replicas.iter().enumerate() {
                    let timelines = Arc::clone(&timelines);
                    store.on_apply(name, move |offset| timelines[index].lock().push((Instant::now(), offset)));
                }
            }
            Backend::Postgres(postgres) => {
                for (index, url) in postgres.replica_urls().iter().enumerate() {
                    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
                    tasks.push(tokio::spawn(async move { drop(connection.await) }));
                    tasks.push(tokio::spawn(poll(client, Arc::clone(&timelines), index)));
                }
            }
        }
        Ok(Self { timelines, tasks })
    }

    pub(crate) async fn stop(self) -> Timelines {
        // Whoever waited at the end of the load is judged too.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.tasks.iter().for_each(JoinHandle::abort);
        Timelines(self.timelines.iter().map(|timeline| timeline.lock().clone()).collect())
    }
}

async fn poll(client: tokio_postgres::Client, timelines: Arc<Vec<Mutex<Timeline>>>, index: usize) {
    let Ok(statement) = client.prepare("select pg_last_wal_replay_lsn()").await else { return };
    let mut last = 0;
    while let Ok(row) = client.query_one(&statement, &[]).await {
        let offset = row.try_get::<_, PgLsn>(0).map_or(0, u64::from);
        if offset > last {
            last = offset;
            timelines[index].lock().push((Instant::now(), offset));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Timelines {
    /// The share of reads that a replica could have served without being stale, if each may wait this long for it.
    /// `None` when no read tells where its session's last write is.
    ///
    /// A read that a replica did serve, and that was not stale, is proof as well: on a busy machine this oracle's own
    /// readings can come late.
    pub(crate) fn share_for_replicas(&self, reads: &[Read], wait: Duration) -> Option<f64> {
        let marked: Vec<_> = reads.iter().filter_map(|read| Some((read, read.mark?.offset()))).collect();
        let possible = marked.iter().filter(|(read, mark)| {
            let served = read.by_replica == Some(true) && !read.stale;
            served || self.0.iter().any(|timeline| reached(timeline, *mark, read.at + wait))
        });
        #[expect(clippy::cast_precision_loss, reason = "counts of reads are small")]
        let share = possible.count() as f64 / marked.len() as f64;
        (!marked.is_empty()).then_some(share)
    }
}

fn reached(timeline: &Timeline, mark: u64, by: Instant) -> bool {
    let first = timeline.partition_point(|(_, offset)| *offset < mark);
    timeline.get(first).is_some_and(|(at, _)| *at <= by)
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Position};

    use super::*;

    #[test]
    fn counts_reads_that_some_replica_could_serve_in_time() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let timelines = Timelines(vec![vec![(ms(10), 1), (ms(20), 2)], vec![(ms(15), 1), (ms(16), 2)], vec![]]);
        let read = |at, mark| Read {
            at: ms(at),
            took: Duration::ZERO,
            stale: false,
            by_replica: None,
            mark: Some(Position::new(ClusterId::new(1), Epoch::new(1), mark)),
        };
        let reads = [read(9, 1), read(10, 1), read(15, 2), read(16, 2), read(99, 3)];
        assert_eq!(timelines.share_for_replicas(&reads, Duration::ZERO), Some(2.0 / 5.0));
        assert_eq!(timelines.share_for_replicas(&reads, Duration::from_millis(1)), Some(4.0 / 5.0));
        assert_eq!(timelines.share_for_replicas(&[], Duration::ZERO), None);
    }
}
