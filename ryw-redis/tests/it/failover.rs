//! Sentinels replace a master, and what the old one had is never taken for all there is.

use std::{sync::mpsc, time::Duration};

use ryw_core::{MarkStore, StoreErrorKind};
use ryw_redis::{ConnectErrorKind, RedisStore};
use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::redis::Sentinels,
};
use tokio::{
    runtime::Handle,
    task::{block_in_place, spawn_blocking},
    time::{Instant, sleep},
};

use crate::support::{at, join, load_soon, random_key, required, settle};

async fn connect(sentinels: &Sentinels) -> RedisStore {
    let builder = RedisStore::builder().deadline(Duration::from_millis(500));
    builder.connect_sentinel(sentinels.service_name(), sentinels.sentinel_urls()).await.unwrap()
}

/// Until what is in doubt about it can be settled, which takes as long as a master is new.
async fn known(store: &RedisStore, key: ryw_core::SubjectKey, offset: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while required(store, key).await.is_none() {
        assert!(Instant::now() < until, "it is never settled");
        settle(store, key, offset).await;
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_replaced() {
    let mut sentinels = spawn_blocking(|| Sentinels::builder().start().unwrap()).await.unwrap();
    let store = connect(&sentinels).await;
    let [marked, anybody] = [random_key(), random_key()];
    for key in [marked, anybody] {
        known(&store, key, 0).await;
    }
    join(&store, marked, 100).await.unwrap();
    block_in_place(|| {
        sentinels.master_mut().unwrap().kill().unwrap();
        sentinels.wait_agreed().unwrap();
    });
    for key in [marked, anybody] {
        let loaded = load_soon(&store, key).await;
        assert!(loaded.marks.is_unknown(), "the replica may have lacked a mark: {loaded:?}");
        // While another process may still believe in the old one, no answer lasts.
        settle(&store, key, 150).await;
        let loaded = load_soon(&store, key).await;
        assert!(loaded.marks.is_unknown(), "another process may have written since: {loaded:?}");
    }
    for key in [marked, anybody] {
        known(&store, key, 200).await;
        assert!(required(&store, key).await.unwrap().covers(&ryw_core::Marks::at(at(200))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f43_a_master_that_was_cut_off_is_not_believed() {
    let (sender, proxies) = mpsc::channel();
    let runtime = Handle::current();
    let start = move || {
        let announce = move |port| {
            let proxy = runtime.block_on(Proxy::start([("127.0.0.1", port)])).unwrap();
            let announced = proxy.port();
            sender.send(proxy).unwrap();
            announced
        };
        Sentinels::builder().announce(announce).start().unwrap()
    };
    let sentinels = spawn_blocking(start).await.unwrap();
    let proxies: Vec<Proxy> = proxies.try_iter().collect();
    let old = sentinels.master().unwrap().port();
    let cut_off = proxies.iter().find(|proxy| proxy.port() == sentinels.servers()[0].announced_port()).unwrap();
    assert_eq!(sentinels.servers()[0].port(), old);

    let (one, other) = (connect(&sentinels).await, connect(&sentinels).await);
    let key = random_key();
    known(&one, key, 0).await;
    join(&one, key, 100).await.unwrap();
    cut_off.black_hole(Direction::Both);
    let agreed = async {
        loop {
            if let Ok(true) = block_in_place(|| sentinels.master().map(|master| master.port() != old)) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), agreed).await.unwrap();
    // It answers again, calls itself master, and nobody has told it or its clients anything yet.
    load_soon(&other, key).await;
    join_soon(&other, key, 300).await;
    cut_off.heal();
    for _ in 0..50 {
        if let Ok(loaded) = one.load(&[key]).await {
            assert!(
                loaded.marks.is_unknown() || loaded.marks.covers(&ryw_core::Marks::at(at(300))),
                "what the old master has was taken for all there is: {loaded:?}"
            );
        }
        sleep(Duration::from_millis(10)).await;
    }
    known(&one, key, 400).await;
    assert!(required(&one, key).await.unwrap().covers(&ryw_core::Marks::at(at(400))));
}

async fn join_soon(store: &RedisStore, key: ryw_core::SubjectKey, offset: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = join(store, key, offset).await {
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_alone_is_not_believed() {
    let mut sentinels = spawn_blocking(|| Sentinels::builder().start().unwrap()).await.unwrap();
    let store = connect(&sentinels).await;
    let key = random_key();
    known(&store, key, 0).await;
    block_in_place(|| sentinels.sentinels_mut().iter_mut().take(2).for_each(|sentinel| sentinel.kill().unwrap()));
    // As long as it was last looked at not long ago it may be asked.
    let until = Instant::now() + Duration::from_secs(20);
    let error = loop {
        match store.load(&[key]).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < until, "it is believed for ever"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let refused = RedisStore::builder().connect_sentinel(sentinels.service_name(), sentinels.sentinel_urls()).await;
    assert_eq!(refused.unwrap_err().kind(), ConnectErrorKind::NoMaster);
    block_in_place(|| sentinels.sentinels_mut().iter_mut().for_each(|sentinel| sentinel.start().unwrap()));
    load_soon(&store, key).await;
    let unknown = RedisStore::builder().connect_sentinel("nobody", sentinels.sentinel_urls()).await;
    assert_eq!(unknown.unwrap_err().kind(), ConnectErrorKind::NoMaster);
}
