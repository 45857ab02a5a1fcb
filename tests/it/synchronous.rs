//! With synchronous standbys the primary can be the one that shows less.

use axum::http::{StatusCode, header::RETRY_AFTER};
use tower_ryw::topology::NodeState;

use crate::world::{World, pause, shown, until, until_shown};

const SESSIONS: [(&str, &str); 2] = [("monotonic", "MONOTONIC"), ("session", "SESSION")];

#[tokio::test]
async fn f27_what_was_seen_on_a_standby_does_not_vanish_on_the_primary() {
    let mut world = World::with_standbys(2).await;
    for session in ["monotonic", "session", "other", "writer"] {
        world.service.read(session, "none").await;
    }
    world.service.put("writer", "note", 1).await;
    for standby in world.cluster.standbys() {
        until_shown(standby, "note", 1).await;
    }
    world.caught_up().await;
    pause(&world.cluster.standbys()[1]).await;

    world.cluster.synchronous("zzz").unwrap();
    let service = world.service.clone();
    let writing = tokio::spawn(async move { service.put("writer", "note", 2).await });
    until_shown(world.standby(), "note", 2).await;
    assert_eq!(shown(world.cluster.primary(), "note"), Some(1), "a chance to go back in time");
    let read = async |(session, level): (&str, &str)| world.service.get(session, "/notes/note", level).await;
    for session in SESSIONS {
        until("the session has seen it", async || read(session).await.value() == Some(2)).await;
        for _ in 0..20 {
            let read = read(session).await;
            assert_eq!((read.value(), read.node()), (Some(2), Some("r1")), "{read:?}");
        }
    }

    world.cluster.server_mut("r1").unwrap().kill().unwrap();
    let view = || world.pool.topology().view().clone();
    let is_down = || view().nodes().iter().any(|node| node.name().as_str() == "r1" && node.state() == NodeState::Down);
    until("nobody has it but the primary", async || is_down()).await;
    let read = async |(session, level): (&str, &str)| world.service.get(session, "/notes/note", level).await;
    for _ in 0..10 {
        for session in SESSIONS {
            let read = read(session).await;
            assert_eq!(read.status, StatusCode::SERVICE_UNAVAILABLE, "{read:?}");
            assert!(read.headers.contains_key(RETRY_AFTER), "{read:?}");
        }
        // Who has not seen it may see what was before.
        assert_eq!(read(("other", "MONOTONIC")).await.value(), Some(1));
        assert_eq!(world.service.get("other", "/notes/note", "STRONG").await.value(), Some(1));
    }

    world.cluster.synchronous("").unwrap();
    assert_eq!(writing.await.unwrap().status, StatusCode::NO_CONTENT);
    for session in SESSIONS {
        until("the primary shows it", async || read(session).await.status == StatusCode::OK).await;
        let read = read(session).await;
        assert_eq!((read.value(), read.served()), (Some(2), ("primary", "behind")), "{read:?}");
    }
}
