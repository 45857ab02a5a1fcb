//! Values in PostgreSQL: a cluster that the user runs, or one of our own in a temporary folder.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ryw_postgres::{
    RywPool,
    tokio_postgres::{Row, types::ToSql},
};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tower_ryw::{Topology, topology::NodeState};

use super::{BackendError, Via};

const SCHEMA: &str = "
create table if not exists memory (
    tenant text not null,
    key    text not null,
    value  bytea not null,
    primary key (tenant, key)
)";

/// A pool that follows each request's route.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    pool: RywPool,
    replica_urls: Arc<[String]>,
    /// Stopped and removed with the last clone.
    _own: Option<Arc<Cluster>>,
}

impl Postgres {
    pub(crate) async fn connect(primary: &str, replicas: &[String]) -> Result<Self, BackendError> {
        let builder = RywPool::builder().primary(primary).max_connections(24);
        let pool = replicas.iter().fold(builder, |builder, url| builder.replica(url)).connect().await?;
        pool.primary().await?.batch_execute(SCHEMA).await?;
        let postgres = Self { pool, replica_urls: replicas.into(), _own: None };
        postgres.replicated().await;
        Ok(postgres)
    }

    /// A primary and two standbys, the second of which applies late.
    pub(crate) async fn start(lag: Duration) -> Result<Self, BackendError> {
        let start = move || {
            Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2").apply_delay(lag)).start()
        };
        let cluster = tokio::task::spawn_blocking(start).await??;
        let replicas: Vec<_> = cluster.standbys().iter().map(|standby| standby.url()).collect();
        let postgres = Self::connect(&cluster.primary().url(), &replicas).await?;
        Ok(Self { _own: Some(Arc::new(cluster)), ..postgres })
    }

    /// Waits, for a while, until the table is on every replica that is there: before that, reads there would fail.
    async fn replicated(&self) {
        let topology = self.topology();
        let Some(position) = topology.sample_primary().await else { return };
        let there = |offset: u64| {
            let view = topology.view();
            let mut replicas = view.nodes().iter().filter(|node| node.state() == NodeState::Replica);
            replicas.all(|node| node.applied().is_some_and(|applied| applied.offset() >= offset))
        };
        for _ in 0..500 {
            if there(position.offset()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tracing::warn!("replicas are more than 10 s behind: reads there may fail until they have the table");
    }

    pub(crate) fn topology(&self) -> &Topology {
        self.pool.topology()
    }

    /// In the order of the replicas' names.
    pub(crate) fn replica_urls(&self) -> &[String] {
        &self.replica_urls
    }

    pub(crate) async fn get(&self, via: Via, tenant: &str, key: &str) -> Result<Option<Bytes>, BackendError> {
        let sql = "select value from memory where tenant = $1 and key = $2";
        let rows = self.query(via, sql, &[&tenant, &key]).await?;
        Ok(rows.first().map(|row| row.try_get::<_, Vec<u8>>(0)).transpose()?.map(Bytes::from))
    }

    pub(crate) async fn list(&self, via: Via, tenant: &str, limit: u16) -> Result<Vec<(String, Bytes)>, BackendError> {
        let sql = "select key, value from memory where tenant = $1 order by key limit $2";
        let rows = self.query(via, sql, &[&tenant, &i64::from(limit)]).await?;
        let pair = |row: Row| Ok((row.try_get(0)?, row.try_get::<_, Vec<u8>>(1)?.into()));
        rows.into_iter().map(pair).collect()
    }

    pub(crate) async fn put(&self, tenant: &str, key: &str, value: Option<Bytes>) -> Result<(), BackendError> {
        match value {
            Some(value) => {
                let sql = "insert into memory values ($1, $2, $3) on conflict (tenant, key) do update set value = excluded.value";
                self.pool.execute(sql, &[&tenant, &key, &&value[..]]).await?;
            }
            None => {
                self.pool.execute("delete from memory where tenant = $1 and key = $2", &[&tenant, &key]).await?;
            }
        }
        Ok(())
    }

    async fn query(&self, via: Via, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, BackendError> {
        Ok(match via {
            Via::Request => self.pool.query(sql, params).await?,
            Via::RoundRobin => self.pool.replica().await?.query(sql, params).await?,
        })
    }
}
