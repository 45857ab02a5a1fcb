//! No mark is lost while a quorum lives.

use std::{future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_core::{
    Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use ryw_redis::{QuorumStore, RedisStore};
use ryw_testing::{
    servers::redis::RedisServer,
    suite::{self, Times},
};
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};
use tower_ryw::LocalStore;

use crate::support::{at, launch, random_key};

async fn store(server: &RedisServer) -> Arc<dyn MarkStore> {
    Arc::new(RedisStore::builder().deadline(Duration::from_millis(300)).connect(server.url()).await.unwrap())
}

#[test]
fn quorums_that_can_miss_each_other_are_refused() {
    let stores = |count| std::iter::repeat_with(|| Arc::new(LocalStore::new()) as Arc<dyn MarkStore>).take(count);
    for (count, write, read) in [(3, 1, 2), (3, 0, 3), (3, 4, 1), (0, 0, 0), (2, 1, 1), (17, 9, 9)] {
        let error = QuorumStore::new(stores(count), write, read).unwrap_err().to_string();
        assert!(error.contains(&format!("{write} ")) && error.contains(&format!("of {count} stores")), "{error}");
    }
    for (count, write, read) in [(3, 2, 2), (1, 1, 1), (5, 5, 1), (16, 9, 8)] {
        QuorumStore::new(stores(count), write, read).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_are_a_mark_store() {
    let servers = [
        launch(RedisServer::builder()).await,
        launch(RedisServer::builder()).await,
        launch(RedisServer::builder()).await,
    ];
    let times = Times { hold: Duration::from_millis(300), ttl: Duration::from_secs(2) };
    suite::check(times, async |ttl| {
        let mut stores: Vec<Arc<dyn MarkStore>> = Vec::new();
        for server in &servers {
            let builder = RedisStore::builder().key_prefix(format!("test{}", fastrand::u64(..))).ttl(ttl);
            stores.push(Arc::new(builder.connect(server.url()).await.unwrap()));
        }
        QuorumStore::new(stores, 2, 2).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_outlives_any_one_store_and_its_memory() {
    for victim in 0..3 {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(launch(RedisServer::builder()).await);
        }
        let mut stores = Vec::new();
        for server in &servers {
            stores.push(store(server).await);
        }
        let quorum = QuorumStore::new(stores, 2, 2).unwrap();
        let key = random_key();
        let update = Update { marks: Marks::at(at(100)), hold: None };
        quorum.join(&[key], &update).await.unwrap();
        let has_it = async |when: &str| {
            for _ in 0..20 {
                let loaded = quorum.load(&[key]).await.unwrap();
                assert!(loaded.marks.covers(&Marks::at(at(100))), "{when}: {loaded:?}");
            }
        };
        has_it("at first").await;
        block_in_place(|| servers[victim].kill()).unwrap();
        has_it("one is dead").await;
        assert_eq!(quorum.available(), 2);
        block_in_place(|| servers[victim].start()).unwrap();
        has_it("it is back, and knows nothing").await;
        // A second one hangs: the one that came back stands in.
        let other = (victim + 1) % 3;
        block_in_place(|| servers[other].freeze()).unwrap();
        let back = async {
            loop {
                match quorum.load(&[key]).await {
                    Ok(loaded) => break loaded,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let loaded = timeout(Duration::from_secs(10), back).await.unwrap();
        assert!(loaded.marks.covers(&Marks::at(at(100))) || loaded.marks.is_unknown(), "{loaded:?}");
        // Without a quorum there is no answer, and no mark is promised.
        block_in_place(|| servers[victim].kill()).unwrap();
        let answer = timeout(Duration::from_secs(5), quorum.load(&[key])).await.expect("it has a deadline");
        assert!(answer.is_err(), "{answer:?}");
        assert!(timeout(Duration::from_secs(5), quorum.join(&[key], &update)).await.unwrap().is_err());
        block_in_place(|| servers[other].thaw()).unwrap();
    }
}

/// A store that can be away, hang, or lose its memory.
#[derive(Debug, Default)]
struct Moody {
    store: Mutex<LocalStore>,
    mood: Mutex<Mood>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    Slow,
    Away,
    Hangs,
}

impl Moody {
    fn answer<T: Unpin + Send + 'static>(&self, answer: impl FnOnce(&LocalStore) -> StoreFuture<T>) -> StoreFuture<T> {
        match *self.mood.lock() {
            Mood::Well => answer(&self.store.lock()),
            Mood::Slow => {
                let answer = answer(&self.store.lock());
                StoreFuture::boxed(async move {
                    sleep(Duration::from_millis(fastrand::u64(1..80))).await;
                    answer.await
                })
            }
            Mood::Away => StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable)),
            Mood::Hangs => StoreFuture::boxed(pending()),
        }
    }
}

impl MarkStore for Moody {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        self.answer(|store| store.load(keys))
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        self.answer(|store| store.join(keys, update))
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        self.answer(|store| store.settle(unsettled, at))
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        self.answer(|store| store.acknowledge(keys, told))
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_in_one_of_the_stores_is_one() {
    let members: [Arc<Moody>; 3] = Default::default();
    let quorum = QuorumStore::majority(members.clone().map(|member| member as Arc<dyn MarkStore>)).unwrap();
    let key = random_key();
    assert!(!quorum.load(&[key]).await.unwrap().has_entry);
    *members[0].mood.lock() = Mood::Away;
    quorum.join(&[key], &Update { marks: Marks::unknown(), hold: Some(Duration::from_secs(5)) }).await.unwrap();
    *members[0].mood.lock() = Mood::Well;
    sleep(Duration::from_secs(2)).await;
    // One that has missed it, and one that has not.
    *members[2].mood.lock() = Mood::Away;
    let loaded = quorum.load(&[key]).await.unwrap();
    assert!(loaded.has_entry && !loaded.floored.is_empty(), "{loaded:?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_stores_do_no_promise_is_forgotten() {
    for (count, write, read) in [(3, 2, 2), (5, 3, 3), (5, 4, 2), (3, 3, 1), (3, 1, 3), (4, 3, 2)] {
        let (mut answered, mut certain, mut promised_at_all) = (0, 0, 0);
        for _ in 0..40 {
            let members: Vec<Arc<Moody>> = (0..count).map(|_| Arc::default()).collect();
            let stores = members.iter().map(|member| Arc::clone(member) as Arc<dyn MarkStore>);
            let quorum = QuorumStore::new(stores, write, read).unwrap();
            let (key, mut promised) = (random_key(), Marks::none());
            for step in 0..200 {
                // Whatever was written before this moment is before it in the log.
                let log = at(10 * step);
                match fastrand::u8(..10) {
                    0..=2 => {
                        let marks = Marks::at(log);
                        if quorum.join(&[key], &Update { marks: marks.clone(), hold: None }).await.is_ok() {
                            promised.join(&marks);
                            promised_at_all += 1;
                        }
                    }
                    3 => {
                        let moods = [Mood::Well, Mood::Well, Mood::Slow, Mood::Away, Mood::Hangs];
                        *members[fastrand::usize(..count)].mood.lock() = moods[fastrand::usize(..moods.len())];
                    }
                    4 if fastrand::u8(..4) == 0 => {
                        *members[fastrand::usize(..count)].store.lock() = LocalStore::new();
                    }
                    5 => sleep(Duration::from_millis(fastrand::u64(..300))).await,
                    _ => {
                        let Ok(Loaded { mut marks, floor, unsettled, .. }) = quorum.load(&[key]).await else {
                            continue;
                        };
                        marks.join(&floor);
                        assert!(marks.is_unknown() || marks.covers(&promised), "{step}: {marks:?}, and {promised:?}");
                        answered += 1;
                        certain += u32::from(!marks.is_unknown());
                        if fastrand::bool() {
                            // A failure leaves the doubt.
                            drop(quorum.settle(&unsettled, Some(at(10 * step + 5))).await);
                        }
                    }
                }
            }
        }
        assert!(promised_at_all > 500 && answered > 500 && certain > 200, "{promised_at_all} {answered} {certain}");
    }
}
