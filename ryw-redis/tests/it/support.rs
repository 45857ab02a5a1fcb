//! Servers, subjects, and what is asked of them.

use std::time::Duration;

use ryw_core::{ClusterId, Epoch, Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, SubjectKey, Update};
use ryw_redis::RedisStore;
use ryw_testing::servers::redis::{RedisServer, RedisServerBuilder};
use tokio::time::{sleep, timeout};

pub(crate) fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

pub(crate) fn random_key() -> SubjectKey {
    SubjectKey::from_bytes(fastrand::u128(..).to_le_bytes())
}

pub(crate) async fn launch(builder: RedisServerBuilder) -> RedisServer {
    tokio::task::spawn_blocking(|| builder.start().unwrap()).await.unwrap()
}

pub(crate) async fn connect(server: &RedisServer) -> RedisStore {
    RedisStore::connect(server.url()).await.unwrap()
}

pub(crate) async fn load(store: &RedisStore, key: SubjectKey) -> Loaded {
    store.load(&[key]).await.unwrap()
}

pub(crate) async fn join(store: &RedisStore, key: SubjectKey, offset: u64) -> Result<(), StoreError> {
    store.join(&[key], &Update { marks: Marks::at(at(offset)), hold: None }).await
}

/// What the store says once it answers, which has to be soon.
pub(crate) async fn load_soon(store: &RedisStore, key: SubjectKey) -> Loaded {
    let answered = async {
        loop {
            match store.load(&[key]).await {
                Ok(loaded) => return loaded,
                Err(error) => assert_ne!(error.kind(), StoreErrorKind::Corrupt, "{error}"),
            }
            // A step between two looks.
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), answered).await.expect("it answers again")
}

/// Answers whatever is in doubt about this subject.
pub(crate) async fn settle(store: &RedisStore, key: SubjectKey, offset: u64) {
    let unsettled = load(store, key).await.unsettled;
    store.settle(&unsettled, Some(at(offset))).await.unwrap();
}

/// What a subject must see; `None` where it is not known.
pub(crate) async fn required(store: &RedisStore, key: SubjectKey) -> Option<Marks> {
    let Loaded { mut marks, floor, .. } = load(store, key).await;
    marks.join(&floor);
    (!marks.is_unknown() && !marks.is_pending()).then_some(marks)
}
