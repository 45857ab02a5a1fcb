//! Reads that are sent together say what they would have said alone.
//!
//! On one thread, all questions are there before the first of them is sent.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use ryw_core::{Loaded, MarkStore, Marks, StoreError, StoreErrorKind, SubjectKey, Update};
use ryw_redis::RedisStore;
use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::redis::RedisServer,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{at, connect, join, launch, load, random_key, required, settle};

/// Asked for at the same time: those that follow the first few share a command.
async fn load_all(store: &RedisStore, keys: &[SubjectKey]) -> Vec<Result<Loaded, StoreError>> {
    futures_util::future::join_all(keys.iter().map(|key| store.load(&[*key]))).await
}

/// Subjects whose marks and floors are known.
async fn known(store: &RedisStore, count: usize) -> Vec<SubjectKey> {
    let keys: Vec<_> = std::iter::repeat_with(random_key).take(count).collect();
    for key in &keys {
        settle(store, *key, 0).await;
    }
    keys
}

#[tokio::test]
async fn everybody_gets_their_own() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let keys = known(&store, 200).await;
    // Every second one has written.
    for (number, key) in (0..).zip(&keys).step_by(2) {
        join(&store, *key, 1000 + number).await.unwrap();
    }
    server.cli(&["CONFIG", "RESETSTAT"]).unwrap();
    for _ in 0..3 {
        for (number, answer) in (0..).zip(load_all(&store, &keys).await) {
            let Loaded { marks, floor, .. } = answer.unwrap();
            match number % 2 {
                0 => assert_eq!((marks, floor), (Marks::at(at(1000 + number)), Marks::none())),
                _ => assert_eq!((marks, floor), (Marks::none(), Marks::at(at(0)))),
            }
        }
    }
    let stats = server.cli(&["INFO", "commandstats"]).unwrap();
    assert!(stats.contains("cmdstat_mget:calls="), "they were not sent together: {stats}");
}

#[tokio::test]
async fn f40_a_flush_is_noticed_at_once_on_a_busy_server() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let other = connect(&server).await;
    let keys = known(&store, 200).await;
    let one_of_each: Vec<_> = (0..64).map(|bucket| SubjectKey::from_bytes([bucket; 16])).collect();
    for turn in 0..20 {
        for key in &keys {
            settle(&store, *key, 5).await;
        }
        // Buckets are known, for a moment.
        for answer in load_all(&store, &keys).await {
            assert!(!answer.unwrap().marks.is_unknown());
        }
        server.cli(&["FLUSHALL"]).unwrap();
        if turn % 2 == 0 {
            // Somebody begins all buckets anew before it is noticed here.
            let update = Update { marks: Marks::at(at(1)), hold: None };
            other.join(&one_of_each, &update).await.unwrap();
        }
        for answer in load_all(&store, &keys).await {
            let loaded = answer.unwrap();
            assert!(loaded.marks.is_unknown(), "an absent mark was taken for none: {loaded:?}");
        }
    }
}

#[tokio::test]
async fn f40_a_flush_that_one_part_has_recovered_from_has_emptied_the_others() {
    let server = launch(RedisServer::builder()).await;
    let (store, other) = (connect(&server).await, connect(&server).await);
    let of_bucket = |bucket: u8| (0..3_u8).map(move |number| [vec![bucket], vec![number; 15]].concat());
    let keys = |bucket| of_bucket(bucket).map(|bytes| SubjectKey::from_bytes(bytes.try_into().unwrap()));
    let (here, there): (Vec<_>, Vec<_>) = (keys(1).collect(), keys(2).collect());
    for _ in 0..10 {
        for key in [here[0], there[0]] {
            settle(&store, key, 5).await;
        }
        // What is known of one part is forgotten here, not of the other.
        sleep(Duration::from_millis(60)).await;
        load_all(&store, &there).await;
        join(&other, there[1], 1000).await.unwrap();
        server.cli(&["FLUSHALL"]).unwrap();
        load(&other, here[0]).await;
        settle(&other, here[0], 2000).await;
        load_all(&store, &here).await;
        let keys = [here.clone(), there.clone()].concat();
        for (key, answer) in keys.iter().zip(load_all(&store, &keys).await) {
            let Loaded { mut marks, floor, .. } = answer.unwrap();
            marks.join(&floor);
            let is_covered = marks.is_unknown() || marks.covers(&Marks::at(at(1000)));
            assert!(*key != there[1] || is_covered, "{marks:?}");
        }
    }
}

#[tokio::test]
async fn f43_a_replica_is_not_read_by_many_either() {
    let (master, other) = (launch(RedisServer::builder()).await, launch(RedisServer::builder()).await);
    let store = connect(&other).await;
    let keys = known(&store, 200).await;
    load_all(&store, &keys).await;
    // At once, before anybody looks at it again.
    other.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
    for answer in load_all(&store, &keys).await {
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_is_no_matter_of_the_others() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let keys = known(&store, 64).await;
    server.cli(&["FLUSHALL"]).unwrap();
    join(&store, keys[10], 10).await.unwrap();
    let names = server.cli(&["KEYS", "ryw{?}?*"]).unwrap();
    assert!(!names.is_empty());
    // A name has bytes that no command line takes.
    let script =
        "local name = redis.call('KEYS', 'ryw{?}?*')[1] redis.call('DEL', name) redis.call('LPUSH', name, 'x')";
    server.cli(&["EVAL", script, "0"]).unwrap();
    for _ in 0..3 {
        for (number, answer) in load_all(&store, &keys).await.into_iter().enumerate() {
            match number {
                10 => assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::Corrupt),
                _ => assert!(answer.unwrap().marks.is_unknown()),
            }
        }
        for key in keys.iter().enumerate().filter(|(number, _)| *number != 10).map(|(_, key)| key) {
            load(&store, *key).await;
        }
    }
    assert_eq!(join(&store, keys[10], 11).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn whoever_leaves_harms_nobody() {
    let server = launch(RedisServer::builder()).await;
    let store = connect(&server).await;
    let keys = known(&store, 100).await;
    for key in &keys {
        join(&store, *key, 7).await.unwrap();
    }
    let mut staying = JoinSet::new();
    for key in keys.iter().copied() {
        let mut leaving = pin!(store.load(&[key]));
        poll_fn(|cx| {
            let _ = leaving.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        let store = store.clone();
        staying.spawn(async move { required(&store, key).await });
    }
    assert!(staying.join_all().await.into_iter().all(|marks| marks == Some(Marks::at(at(7)))));
}

#[tokio::test]
async fn a_slow_server_is_slow_once_for_all_of_them() {
    let server = launch(RedisServer::builder()).await;
    let proxy = Proxy::start([("127.0.0.1", server.port())]).await.unwrap();
    let builder = RedisStore::builder().deadline(Duration::from_secs(20));
    let store = builder.connect(format!("redis://127.0.0.1:{}", proxy.port())).await.unwrap();
    let keys = known(&store, 100).await;
    for key in &keys {
        join(&store, *key, 7).await.unwrap();
    }
    proxy.delay(Direction::ToClient, Duration::from_millis(100));
    // One after the other would take a thousand round trips.
    let keys: Vec<_> = keys.iter().copied().cycle().take(1000).collect();
    let answers = timeout(Duration::from_secs(20), load_all(&store, &keys)).await.expect("they share round trips");
    assert!(answers.into_iter().all(|answer| answer.unwrap().marks == Marks::at(at(7))));
    // And one that is slower than the deadline does not answer.
    let hasty = RedisStore::builder().deadline(Duration::from_millis(50));
    let hasty = hasty.connect_lazy(format!("redis://127.0.0.1:{}", proxy.port())).unwrap();
    assert!(hasty.load(&keys[..1]).await.is_err());
    proxy.heal();
}
