//! Replicas that are waited for.

use std::{error::Error as _, time::Duration};

use ryw_core::{MarkStore, Marks, StoreErrorKind};
use ryw_redis::RedisStore;
use ryw_testing::servers::redis::RedisServer;
use tokio::{task::block_in_place, time::timeout};

use crate::support::{at, join, launch, load, random_key, required, settle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f44_a_mark_that_too_few_replicas_have_is_not_written() {
    let (master, replica) = (launch(RedisServer::builder()).await, launch(RedisServer::builder()).await);
    block_in_place(|| replica.replica_of(&master)).unwrap();
    // It is slow to answer for the first time.
    assert_eq!(block_in_place(|| master.replicated(1, Duration::from_secs(10))).unwrap(), 1);
    let store = RedisStore::builder().wait_for_replicas(1, Duration::from_secs(3600));
    let store = store.connect(master.url()).await.unwrap();
    let hasty = RedisStore::builder().wait_for_replicas(1, Duration::from_millis(100));
    let hasty = hasty.connect(master.url()).await.unwrap();
    let key = random_key();
    settle(&store, key, 0).await;
    join(&store, key, 100).await.unwrap();
    assert_ne!(replica.cli(&["KEYS", "*"]).unwrap(), "", "the replica has it when the answer is there");

    block_in_place(|| replica.freeze()).unwrap();
    let error = join(&hasty, key, 200).await.unwrap_err();
    // The layer keeps what could not be delivered in time.
    assert_eq!(error.kind(), StoreErrorKind::TooFewCopies);
    assert_eq!(error.source().unwrap().to_string(), "0 of 1 replicas have the mark");
    // Whoever waits holds nobody else up.
    let writer = store.clone();
    let waiting = tokio::spawn(async move { join(&writer, key, 300).await });
    let seen = async {
        while required(&store, key).await != Some(Marks::at(at(300))) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), seen).await.expect("reads go on");
    assert!(!waiting.is_finished());
    block_in_place(|| replica.thaw()).unwrap();
    timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
    join(&store, key, 400).await.unwrap();
    assert!(load(&store, key).await.marks.covers(&Marks::at(at(400))));
    // It has all of it, and is the only one.
    let strict = RedisStore::builder().wait_for_replicas(2, Duration::from_millis(100)).connect(master.url()).await;
    let error = join(&strict.unwrap(), key, 500).await.unwrap_err();
    assert!(error.source().unwrap().to_string().ends_with("of 2 replicas have the mark"), "{error:?}");
    assert!(store.load(&[key]).await.is_ok());
}
