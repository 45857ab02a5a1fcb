//! What every mark store must do.

use std::time::Duration;

use ryw_redis::{RedisStore, RedisStoreBuilder};
use ryw_testing::{
    servers::redis::{RedisCluster, RedisServer, Sentinels},
    suite::{self, Times},
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::support::{join, launch, random_key};

const TIMES: Times = Times { hold: Duration::from_millis(300), ttl: Duration::from_secs(2) };

fn builder(ttl: Duration) -> RedisStoreBuilder {
    RedisStore::builder().key_prefix(format!("test{}", fastrand::u64(..))).ttl(ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server() {
    let server = launch(RedisServer::builder()).await;
    suite::check(TIMES, async |ttl| builder(ttl).connect(server.url()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels() {
    let sentinels = spawn_blocking(|| Sentinels::builder().start().unwrap()).await.unwrap();
    let (service, urls) = (sentinels.service_name(), sentinels.sentinel_urls());
    suite::check(TIMES, async |ttl| {
        let builder = builder(ttl).wait_for_replicas(1, Duration::from_secs(1));
        let store = builder.connect_sentinel(service, urls.clone()).await.unwrap();
        // As long as the master is new, nothing is promised.
        let promised = async { while join(&store, random_key(), 1).await.is_err() {} };
        timeout(Duration::from_secs(30), promised).await.unwrap();
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster() {
    let cluster = spawn_blocking(|| RedisCluster::builder().start().unwrap()).await.unwrap();
    suite::check(TIMES, async |ttl| builder(ttl).connect_cluster(cluster.urls()).await.unwrap()).await;
}
