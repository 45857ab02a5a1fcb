//! With `synchronous_commit` off, a commit is visible before it is flushed; its mark lies behind it all the same.

use std::time::Duration;

use axum::Router;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::task::JoinSet;

use crate::world::World;

const SESSIONS: usize = 3;
const WRITES: i64 = 100;

#[tokio::test]
async fn commits_that_are_not_flushed_are_marked_too() {
    let late = Standby::named("late").apply_delay(Duration::from_millis(300));
    let cluster = Cluster::builder().primary_setting("synchronous_commit", "off").standby(Standby::named("near"));
    let world = World::start(cluster.standby(late), Router::new(), 10).await;
    assert_eq!(world.cluster.primary().psql("show synchronous_commit").unwrap(), "off");

    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        let service = world.service.clone();
        sessions.spawn(async move {
            let name = format!("s{number}");
            for value in 1..=WRITES {
                service.put(&name, &name, value).await;
                let read = service.read(&name, &name).await;
                assert_eq!(read.value(), Some(value), "{read:?}");
            }
        });
    }
    let sessions = sessions.join_all().await;
    assert_eq!(sessions.len(), SESSIONS);
}
