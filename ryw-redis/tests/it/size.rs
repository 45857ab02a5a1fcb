//! What a marked session costs in Redis.

use ryw_core::{MarkStore, Marks, Update};
use ryw_testing::servers::redis::RedisServer;

use crate::support::{at, connect, launch, random_key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marked_session_takes_160_bytes_at_most() {
    /// So many that Redis' tables are three quarters full, as they are on average.
    const SESSIONS: u64 = 98_304 - 4096;
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let used = || server.info("used_memory").unwrap().parse::<u64>().unwrap();
    // Buckets, scripts and connections are there already.
    let mark = async |count| {
        let keys: Vec<_> = std::iter::repeat_with(random_key).take(count).collect();
        store.join(&keys, &Update { marks: Marks::at(at(0x1_6B37_4D48)), hold: None }).await.unwrap();
    };
    for _ in 0..8 {
        mark(512).await;
    }
    let before = used();
    for _ in 0..SESSIONS / 512 {
        mark(512).await;
    }
    let each = (used() - before) as f64 / SESSIONS as f64;
    println!("{each:.0} bytes per marked session");
    assert!(each <= 160.0, "{each:.0} bytes");
}
