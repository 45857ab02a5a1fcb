//! Without positions: a window that follows the delay that is measured.

use std::time::Duration;

use tokio::time::sleep;
use tower_ryw::{AdaptiveWindow, Route};

use crate::harness::{Fixture, LAG, session, with_window};

const LONGEST: Duration = Duration::from_secs(60);

/// Writes a heartbeat and waits until the replica shows it.
async fn measure(fixture: &Fixture, window: &AdaptiveWindow, beat: u32) {
    let beat = beat.to_string();
    fixture.store.put("t", "heartbeat", Some(beat.clone().into())).unwrap();
    let measurement = window.start();
    let replica = Route::Replica { node: Some("r1".into()) };
    while fixture.store.get(&replica, "t", "heartbeat").as_deref() != Some(beat.as_bytes()) {
        sleep(Duration::from_millis(10)).await;
    }
    measurement.visible();
}

#[tokio::test(start_paused = true)]
async fn a_session_is_on_the_primary_for_as_long_as_replicas_were_late() {
    let window = AdaptiveWindow::new(Duration::from_millis(100), LONGEST);
    let fixture = with_window(|builder| builder.adaptive_window(window.clone()));
    // What an earlier process has marked is held for the longest window.
    sleep(LONGEST + Duration::from_secs(1)).await;

    fixture.put("/v/a", &[session("me")], "1").await;
    sleep(10 * LAG).await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert!(read.route().starts_with("primary;reason=window"), "nothing is known yet: {}", read.route());

    for beat in 0..30 {
        measure(&fixture, &window, beat).await;
    }
    let current = window.current();
    assert!(current >= LAG && current < LONGEST / 10, "{current:?}");
    fixture.put("/v/a", &[session("you")], "2").await;
    sleep(current - Duration::from_millis(100)).await;
    let read = fixture.get("/v/a", &[session("you")]).await;
    assert!(read.route().starts_with("primary;reason=window"), "{}", read.route());
    sleep(Duration::from_millis(300)).await;
    let read = fixture.get("/v/a", &[session("you")]).await;
    assert!(read.route().starts_with("replica"), "{}", read.route());
    assert_eq!(read.body, "2");
}
