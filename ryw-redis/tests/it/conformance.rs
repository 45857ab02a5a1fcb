//! What every mark store must do.

use std::time::Duration;

use ryw_redis::RedisStore;
use ryw_testing::{
    servers::redis::RedisServer,
    suite::{self, Times},
};

use crate::support::launch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server() {
    let server = launch(RedisServer::builder()).await;
    let times = Times { hold: Duration::from_millis(300), ttl: Duration::from_secs(2) };
    suite::check(times, async |ttl| {
        let prefix = format!("test{}", fastrand::u64(..));
        RedisStore::builder().key_prefix(prefix).ttl(ttl).connect(server.url()).await.unwrap()
    })
    .await;
}
