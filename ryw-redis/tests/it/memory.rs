//! Redis forgets by design, and what it may have forgotten is never taken for "nothing was written".

use std::time::Duration;

use ryw_core::{MarkStore, Marks, StoreErrorKind, SubjectKey, Update};
use ryw_redis::RedisStore;
use ryw_testing::servers::redis::RedisServer;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use crate::support::{at, connect, join, launch, load, load_soon, random_key, required, settle};

/// How a server loses what it was told.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Flush,
    Kill,
    Stop,
    /// A replica that had not got the last mark takes over.
    OlderCopy,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f40_a_missing_mark_is_unknown_after_whatever_loss() {
    for loss in [Loss::Flush, Loss::Kill, Loss::Stop, Loss::OlderCopy] {
        let mut server = launch(RedisServer::builder()).await;
        let store = connect(&server).await;
        let (marked, anybody) = (random_key(), random_key());
        for key in [marked, anybody] {
            settle(&store, key, 0).await;
        }
        join(&store, marked, 100).await.unwrap();
        assert_eq!(required(&store, marked).await, Some(Marks::at(at(100))), "{loss:?}");
        assert_eq!(required(&store, anybody).await, Some(Marks::at(at(0))), "{loss:?}");
        match loss {
            Loss::Flush => drop(server.cli(&["FLUSHALL"]).unwrap()),
            Loss::Kill | Loss::Stop => block_in_place(|| {
                if matches!(loss, Loss::Kill) {
                    server.kill().unwrap()
                } else {
                    server.stop().unwrap()
                }
                server.start().unwrap();
            }),
            Loss::OlderCopy => {
                // What it has is from before the last mark; and it is another run.
                let persistent = launch(RedisServer::builder().persistent()).await;
                let old = connect(&persistent).await;
                settle(&old, marked, 0).await;
                join(&old, marked, 90).await.unwrap();
                server = persistent;
                block_in_place(|| {
                    server.kill().unwrap();
                    server.start().unwrap();
                });
                let store = connect(&server).await;
                let loaded = load(&store, marked).await;
                assert!(loaded.marks.is_unknown() && loaded.marks.covers(&Marks::at(at(90))), "{loaded:?}");
                settle(&store, marked, 120).await;
                assert!(required(&store, marked).await.unwrap().covers(&Marks::at(at(120))));
                continue;
            }
        }
        for key in [marked, anybody] {
            let loaded = load_soon(&store, key).await;
            assert!(loaded.marks.is_unknown(), "{loss:?}: {loaded:?}");
        }
        // One sample for all of them that share a bucket; and what is written from here on is known again.
        for key in [marked, anybody] {
            settle(&store, key, 150).await;
            assert!(required(&store, key).await.unwrap().covers(&Marks::at(at(150))), "{loss:?}");
        }
        join(&store, marked, 160).await.unwrap();
        assert!(required(&store, marked).await.unwrap().covers(&Marks::at(at(160))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answer_for_a_part_is_enough_for_whoever_writes_there_next() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    // Of one part, which the first bytes say.
    let [first, second, third] = [1, 2, 3].map(|n| {
        let mut bytes = *random_key().as_bytes();
        (bytes[0], bytes[1], bytes[15]) = (7, 7, n);
        SubjectKey::from_bytes(bytes)
    });
    for key in [first, second] {
        join(&store, key, 100).await.unwrap();
        assert!(load(&store, key).await.marks.is_unknown(), "it may have written before the server was started");
    }
    settle(&store, first, 120).await;
    assert_eq!(required(&store, first).await, Some(Marks::at(at(120))));
    join(&store, third, 110).await.unwrap();
    assert_eq!(required(&store, third).await, Some(Marks::at(at(120))), "nobody has to be asked for it");
    assert_eq!(required(&store, second).await, None, "what it was in doubt about, it says itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f41_a_late_mark_does_not_hide_a_loss() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let key = random_key();
    settle(&store, key, 0).await;
    join(&store, key, 200).await.unwrap();
    server.cli(&["FLUSHALL"]).unwrap();
    // An earlier write of the session, whose mark was on its way.
    join(&store, key, 100).await.unwrap();
    let loaded = load(&store, key).await;
    assert!(loaded.marks.is_unknown(), "100 would hide 200: {loaded:?}");
    settle(&store, key, 210).await;
    assert!(required(&store, key).await.unwrap().covers(&Marks::at(at(210))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_persistent_server_keeps_is_kept() {
    let mut server = launch(RedisServer::builder().persistent()).await;
    let key = random_key();
    let store = connect(&server).await;
    settle(&store, key, 0).await;
    join(&store, key, 100).await.unwrap();
    block_in_place(|| {
        server.kill().unwrap();
        server.start().unwrap();
    });
    let store = connect(&server).await;
    // Which it can't prove to be all.
    let loaded = load(&store, key).await;
    assert!(loaded.marks.is_unknown() && loaded.marks.covers(&Marks::at(at(100))), "{loaded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_server_is_never_trusted_with_an_absence() {
    let server = launch(RedisServer::builder().setting("maxmemory", "3mb").setting("maxmemory-policy", "allkeys-lru"));
    let server = server.await;
    let store = connect(&server).await;
    let victim = random_key();
    settle(&store, victim, 0).await;
    join(&store, victim, 500).await.unwrap();
    let mut evicted = false;
    for _ in 0..200 {
        let keys: Vec<_> = std::iter::repeat_with(random_key).take(200).collect();
        store.join(&keys, &Update { marks: Marks::at(at(1)), hold: None }).await.unwrap();
        let loaded = load(&store, random_key()).await;
        assert!(loaded.marks.is_unknown(), "an absent mark may have been evicted: {loaded:?}");
        evicted |= server.info("evicted_keys").unwrap() != "0";
    }
    assert!(evicted, "nothing was evicted: there was nothing to see");
    let loaded = load(&store, victim).await;
    assert!(loaded.marks.is_unknown() || loaded.marks.covers(&Marks::at(at(500))), "{loaded:?}");
    // No answer lasts.
    settle(&store, victim, 600).await;
    let other = random_key();
    settle(&store, other, 600).await;
    assert_eq!(required(&store, other).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f41_a_late_mark_does_not_hide_an_eviction() {
    let server = launch(RedisServer::builder()).await;
    let key = random_key();
    // Its floor is known from before.
    settle(&connect(&server).await, key, 0).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let store = connect(&server).await;
    join(&store, key, 200).await.unwrap();
    settle(&store, key, 201).await;
    // As if it had been evicted: the bucket, which is used more often, is still there.
    server.cli(&["EVAL", "redis.call('DEL', redis.call('KEYS', 'ryw{?}?*')[1])", "0"]).unwrap();
    join(&store, key, 100).await.unwrap();
    let loaded = load(&store, key).await;
    assert!(loaded.marks.is_unknown(), "100 would hide 200: {loaded:?}");
    settle(&store, key, 210).await;
    assert!(required(&store, key).await.unwrap().covers(&Marks::at(at(210))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f43_a_replica_is_not_read() {
    let master = launch(RedisServer::builder()).await;
    let other = launch(RedisServer::builder()).await;
    let store = connect(&other).await;
    let key = random_key();
    settle(&store, key, 0).await;
    join(&store, key, 100).await.unwrap();
    // Under the store's feet, without closing its connections.
    block_in_place(|| other.replica_of(&master)).unwrap();
    for _ in 0..20 {
        let answer = store.load(&[key]).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    // And back again, with the other one's memory.
    other.cli(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let loaded = load_soon(&store, key).await;
    assert!(loaded.marks.is_unknown(), "its memory is another one's: {loaded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_type_at_our_key_is_an_error() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let key = random_key();
    join(&store, key, 1).await.unwrap();
    let bucket = server.cli(&["KEYS", "ryw{?}"]).unwrap().trim().to_owned();
    assert_eq!(bucket.len(), "ryw{Q}".len(), "{bucket}");
    server.cli(&["FLUSHALL"]).unwrap();
    server.cli(&["LPUSH", &bucket, "something"]).unwrap();
    assert_eq!(store.load(&[key]).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert!(join(&store, key, 1).await.is_err());
    server.cli(&["DEL", &bucket]).unwrap();
    server.cli(&["SET", &bucket, "no bucket of ours"]).unwrap();
    assert_eq!(store.load(&[key]).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn something_else_at_our_keys_is_an_error_of_those_alone() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let (key, other) = (SubjectKey::from_bytes([1; 16]), SubjectKey::from_bytes([2; 16]));
    for broken in ["x", "12345678"] {
        join(&store, key, 5).await.unwrap();
        let names = server.cli(&["KEYS", "*"]).unwrap();
        for name in names.lines().filter(|name| name.contains("{B}")) {
            server.cli(&["SET", name, broken]).unwrap();
            let joined = join(&store, key, 7).await.map_err(|error| error.kind());
            let loaded = store.load(&[key]).await.map_err(|error| error.kind());
            assert_eq!(
                (joined.err(), loaded.err()),
                (Some(StoreErrorKind::Corrupt), Some(StoreErrorKind::Corrupt)),
                "{name}"
            );
            join(&store, other, 9).await.unwrap();
            server.cli(&["DEL", name]).unwrap();
        }
    }
}

#[tokio::test]
async fn a_hold_outlives_a_later_join() {
    let server = launch(RedisServer::builder()).await;
    let store = RedisStore::builder().ttl(Duration::from_secs(1)).connect(server.url()).await.unwrap();
    let key = random_key();
    load(&store, key).await;
    store.join(&[key], &Update { marks: Marks::unknown(), hold: Some(Duration::from_secs(4)) }).await.unwrap();
    join(&store, key, 7).await.unwrap();
    sleep(Duration::from_millis(1500)).await;
    let loaded = load(&store, key).await;
    assert!(loaded.marks.is_pending(), "the write is still on its way: {loaded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_costs_no_more_than_its_deadline() {
    let server = launch(RedisServer::builder()).await;
    let store =
        ryw_redis::RedisStore::builder().deadline(Duration::from_millis(200)).connect(server.url()).await.unwrap();
    let key = random_key();
    join(&store, key, 1).await.unwrap();
    block_in_place(|| server.freeze()).unwrap();
    for _ in 0..3 {
        let answer = timeout(Duration::from_secs(2), store.load(&[key])).await.expect("it has a deadline");
        assert!(answer.is_err());
    }
    block_in_place(|| server.thaw()).unwrap();
    load_soon(&store, key).await;
}
