//! While the replica is behind, a session's reads go to the primary; once it has caught up, they return to it.

use crate::world::{World, until};

#[tokio::test]
async fn a_paused_replica_serves_only_who_may_be_stale() {
    let world = World::with_standbys(1).await;
    world.service.put("me", "note", 1).await;
    world.pause_replay().await;
    world.service.put("me", "note", 2).await;

    let fresh = world.service.read("me", "note").await;
    assert_eq!((fresh.value(), fresh.served()), (Some(2), ("primary", "behind")), "{fresh:?}");
    let stale = world.service.get("me", "/notes/note", "EVENTUAL").await;
    assert_eq!((stale.value(), stale.served()), (Some(1), ("replica", "stale-allowed")), "{stale:?}");
    let other = world.service.read("somebody-else", "note").await;
    assert_eq!(other.served().0, "primary", "marks of somebody unknown start at what the primary has: {other:?}");

    world.resume_replay();
    until("the replica serves again", async || {
        let read = world.service.read("me", "note").await;
        assert_eq!(read.value(), Some(2), "{read:?}");
        let (by, reason) = read.served();
        assert!(by == "primary" || matches!(reason, "caught-up" | "waited"), "{read:?}");
        by == "replica"
    })
    .await;
}
