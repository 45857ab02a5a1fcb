//! What is wrong with a server is said in words that say what to change.

use ryw_core::MarkStore;
use ryw_redis::{ConnectErrorKind, RedisStore};
use ryw_testing::servers::redis::RedisServer;
use tokio::task::block_in_place;

use crate::support::launch;

async fn refused(url: &str) -> ConnectErrorKind {
    let error = RedisStore::connect(url).await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("secret"), "{text}");
    }
    error.kind()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_at_once() {
    let server = launch(RedisServer::builder().password("right")).await;
    let port = server.port();
    assert_eq!(refused(&format!("redis://:secret@127.0.0.1:{port}")).await, ConnectErrorKind::Denied);
    assert_eq!(refused(&format!("redis://127.0.0.1:{port}")).await, ConnectErrorKind::Denied);
    assert_eq!(refused("redis://:secret@127.0.0.1:1").await, ConnectErrorKind::Unreachable);
    assert_eq!(refused("http://:secret@127.0.0.1").await, ConnectErrorKind::Url);
    assert_eq!(refused("secret").await, ConnectErrorKind::Url);
    let braces = RedisStore::builder().key_prefix("a{}").connect(server.url()).await;
    assert_eq!(braces.unwrap_err().kind(), ConnectErrorKind::Prefix);
    RedisStore::connect(server.url()).await.unwrap();

    let (master, replica) = (launch(RedisServer::builder()).await, launch(RedisServer::builder()).await);
    block_in_place(|| replica.replica_of(&master)).unwrap();
    assert_eq!(refused(&replica.url()).await, ConnectErrorKind::NotAMaster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_privileges_are_enough() {
    let server = launch(RedisServer::builder()).await;
    let rules = "on >pass ~ryw{* +info +time +get +getex +mget +exists +multi +exec +set +evalsha +script|load";
    let mut command = vec!["ACL", "SETUSER", "ryw"];
    command.extend(rules.split(' '));
    server.cli(&command).unwrap();
    let url = format!("redis://ryw:pass@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(url.as_str()).await.unwrap();
    let key = crate::support::random_key();
    crate::support::settle(&store, key, 5).await;
    crate::support::join(&store, key, 10).await.unwrap();
    assert!(crate::support::required(&store, key).await.is_some());
    let many: Vec<_> = (0..64).map(|_| store.load(&[key])).collect();
    for answer in futures_util::future::join_all(many).await {
        answer.unwrap();
    }
    server.cli(&["ACL", "SETUSER", "ryw", "-info"]).unwrap();
    assert_eq!(refused(&url).await, ConnectErrorKind::Denied);
}
