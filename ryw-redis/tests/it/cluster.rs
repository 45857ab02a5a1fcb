//! Slots move from one server to another, and servers are replaced, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use ryw_core::{MarkStore, Marks, StoreErrorKind, SubjectKey};
use ryw_redis::RedisStore;
use ryw_testing::servers::redis::RedisCluster;
use tokio::{
    task::{JoinSet, block_in_place, spawn_blocking},
    time::{Instant, sleep},
};

use crate::support::{at, join, load_soon, random_key, required, settle};

async fn connect(cluster: &RedisCluster) -> RedisStore {
    RedisStore::builder().connect_cluster(cluster.urls()).await.unwrap()
}

/// A subject of the bucket with this number.
fn key_in(bucket: u8) -> SubjectKey {
    let mut bytes = *random_key().as_bytes();
    bytes[0] = bucket;
    SubjectKey::from_bytes(bytes)
}

/// Writes and reads marks of one subject until told to stop. Returns how many of each had an answer.
async fn write_and_read(
    store: RedisStore,
    key: SubjectKey,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
) -> (u64, u64, u64) {
    let (mut offset, mut written, mut read, mut unknown) = (0, 0, 0, 0);
    while !stop.load(SeqCst) {
        offset += 1;
        if join(&store, key, offset).await.is_ok() {
            written = offset;
        }
        let Ok(loaded) = store.load(&[key]).await else { continue };
        read += 1;
        answers.fetch_add(1, SeqCst);
        let mut required = loaded.marks.clone();
        required.join(&loaded.floor);
        if required.is_unknown() {
            unknown += 1;
            store.settle(&loaded.unsettled, Some(at(offset))).await.ok();
        } else {
            assert!(required.covers(&Marks::at(at(written))), "{written} was written: {loaded:?}");
        }
    }
    (written, read, unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_under_load_loses_nothing() {
    let cluster = Arc::new(spawn_blocking(|| RedisCluster::builder().start().unwrap()).await.unwrap());
    let store = connect(&cluster).await;
    let bucket = 16; // `Q`
    let slot = cluster.slot("ryw{Q}").unwrap();
    // So many that the move takes its time.
    for _ in 0..20 {
        let keys: Vec<_> = std::iter::repeat_with(|| key_in(bucket)).take(100).collect();
        store.join(&keys, &ryw_core::Update { marks: Marks::at(at(7)), hold: None }).await.unwrap();
    }
    let resting = key_in(bucket);
    settle(&store, resting, 0).await;
    join(&store, resting, 100).await.unwrap();

    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        load.spawn(write_and_read(store.clone(), key_in(bucket), Arc::clone(&stop), Arc::clone(&answers)));
    }
    for turn in 0..6 {
        let before = answers.load(SeqCst);
        let until = Instant::now() + Duration::from_secs(20);
        while answers.load(SeqCst) < before + 100 {
            assert!(Instant::now() < until, "marks are not read any more");
            sleep(Duration::from_millis(1)).await;
        }
        let cluster = Arc::clone(&cluster);
        let moved = move || {
            let from = cluster.owner(slot).unwrap();
            let to = cluster.servers().iter().filter(|server| server.port() != from.port()).nth(turn % 2).unwrap();
            cluster.migrate_slot(slot, from, to).unwrap();
        };
        spawn_blocking(moved).await.unwrap();
    }
    stop.store(true, SeqCst);
    for (written, read, unknown) in load.join_all().await {
        println!("{written} written, {read} read, {unknown} of them unknown");
        assert!(written > 20 && read > 20, "{written} {read}: there was no load");
        assert!(unknown > 0, "the slot was on other servers");
        assert!(unknown < read, "and known again");
    }
    let loaded = load_soon(&store, resting).await;
    assert!(loaded.marks.covers(&Marks::at(at(100))), "{loaded:?}");
    settle(&store, resting, 10_000).await;
    assert!(required(&store, resting).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_on_its_way_is_waited_for() {
    const BUCKET: &str = "ryw{Q}";
    const ENTRY: &str = "ryw{Q}aaaaaaaa";
    let cluster = spawn_blocking(|| RedisCluster::builder().start().unwrap()).await.unwrap();
    let builder = RedisStore::builder().deadline(Duration::from_secs(20));
    let store = builder.connect_cluster(cluster.urls()).await.unwrap();
    let mut bytes = [b'a'; 16];
    bytes[0] = 16;
    let key = SubjectKey::from_bytes(bytes);
    settle(&store, key, 0).await;
    join(&store, key, 100).await.unwrap();

    let slot = cluster.slot(BUCKET).unwrap();
    let from = cluster.owner(slot).unwrap();
    let to = cluster.servers().iter().find(|server| server.port() != from.port()).unwrap();
    let [from_id, to_id] = [from, to].map(|server| server.cli(&["CLUSTER", "MYID"]).unwrap());
    let (slot, port) = (slot.to_string(), to.port().to_string());
    to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).unwrap();
    from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).unwrap();
    let migrate = |name| from.cli(&["MIGRATE", "127.0.0.1", &port, name, "0", "10000"]).unwrap();
    migrate(BUCKET);
    let load = tokio::spawn(store.load(&[key]));
    // So that it meets the two in different places.
    sleep(Duration::from_millis(100)).await;
    migrate(ENTRY);
    let loaded = load.await.unwrap().unwrap();
    assert!(loaded.marks.is_unknown() && loaded.marks.covers(&Marks::at(at(100))), "{loaded:?}");
    // Both servers still call the first one the owner.
    join(&store, key, 200).await.unwrap();
    settle(&store, key, 150).await;
    assert!(required(&store, key).await.unwrap().covers(&Marks::at(at(200))));
    for server in [to, from] {
        server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).unwrap();
    }
    assert!(required(&store, key).await.unwrap().covers(&Marks::at(at(200))));

    to.cli(&["DEL", ENTRY]).unwrap();
    to.cli(&["LPUSH", ENTRY, "something"]).unwrap();
    assert_eq!(store.load(&[key]).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_replaced_by_its_replica() {
    let mut cluster = spawn_blocking(|| RedisCluster::builder().replicas().start().unwrap()).await.unwrap();
    let store = connect(&cluster).await;
    let keys: Vec<_> = (0..64).map(key_in).collect();
    for key in &keys {
        settle(&store, *key, 0).await;
        join(&store, *key, 100).await.unwrap();
        assert_eq!(required(&store, *key).await, Some(Marks::at(at(100))));
    }
    block_in_place(|| {
        cluster.servers_mut()[0].kill().unwrap();
        cluster.wait_ok().unwrap();
    });
    let mut unknown = 0;
    for key in &keys {
        let loaded = load_soon(&store, *key).await;
        unknown += u32::from(loaded.marks.is_unknown());
        if !loaded.marks.is_unknown() {
            assert!(loaded.marks.covers(&Marks::at(at(100))), "{loaded:?}");
        }
        settle(&store, *key, 200).await;
        assert!(required(&store, *key).await.is_some());
    }
    assert!((1..64).contains(&unknown), "{unknown} of 64 buckets were the killed server's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_holds_up_its_own_buckets_only() {
    let cluster = spawn_blocking(|| RedisCluster::builder().setting("cluster-node-timeout", "60000").start().unwrap());
    let cluster = cluster.await.unwrap();
    let store = connect(&cluster).await;
    let [mut here, mut elsewhere] = [None, None];
    for bucket in 0..64 {
        let key = key_in(bucket);
        join(&store, key, 1).await.unwrap();
        let name = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".as_bytes()[usize::from(bucket)];
        let slot = cluster.slot(&format!("ryw{{{}}}", char::from(name))).unwrap();
        let is_first = cluster.owner(slot).unwrap().port() == cluster.servers()[0].port();
        if is_first { here = Some(key) } else { elsewhere = Some(key) }
    }
    let (here, elsewhere) = (here.unwrap(), elsewhere.unwrap());
    block_in_place(|| cluster.servers()[0].freeze()).unwrap();
    let hangs = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs(20);
    let held_up = async {
        assert!(store.load(&[here]).await.is_err());
        hangs.store(1, SeqCst);
    };
    let others = async {
        let mut answered = 0;
        while hangs.load(SeqCst) == 0 {
            assert!(Instant::now() < until, "it has a deadline");
            store.load(&[elsewhere]).await.unwrap();
            answered += 1;
            sleep(Duration::from_millis(5)).await;
        }
        assert!(answered > 2, "only {answered} answers");
    };
    tokio::join!(held_up, others);
    block_in_place(|| cluster.servers()[0].thaw()).unwrap();
    load_soon(&store, here).await;
}
