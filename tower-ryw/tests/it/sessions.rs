//! Who a session is, and how it travels.

use std::time::Duration;

use crate::harness::{LAG, session, with_positions, with_window};

#[tokio::test(start_paused = true)]
async fn an_anonymous_read_that_asks_for_no_data_is_left_alone() {
    for fixture in [with_positions(|b| b), with_window(|b| b)] {
        let answer = fixture.get("/static", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "the same for all"));
        let mut names: Vec<_> = answer.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "content-type"], "nothing is added");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_born_with_its_first_write_and_travels_three_ways() {
    for fixture in [with_positions(|b| b), with_window(|b| b)] {
        // Past the start, in which nothing is known about anybody.
        tokio::time::sleep(LAG * 3).await;
        let fixture = fixture.settled().await;
        let written = fixture.put("/v/a", &[], "1").await;
        assert_eq!(written.header("cache-control"), Some("private"));
        let id = written.header("x-session-id").unwrap().to_owned();
        let token = written.header("ryw-token").unwrap().to_owned();
        let cookie = written.cookie().unwrap();
        assert!(cookie.starts_with("ryw=") && id.len() == 32);
        for carried in [session(&id), ("ryw-token", token.as_str()), ("cookie", cookie.as_str())] {
            let read = fixture.get("/v/a", &[carried]).await;
            assert_eq!(read.body, "1", "{carried:?}");
            assert!(read.route().starts_with("primary"), "{}", read.route());
        }
        let stranger = fixture.get("/v/a", &[session("stranger")]).await;
        assert_eq!(stranger.body, "nothing", "the replica really is late: {}", stranger.route());

        tokio::time::sleep(LAG * 3).await;
        for carried in [session(&id), ("ryw-token", token.as_str()), ("cookie", cookie.as_str())] {
            let read = fixture.get("/v/a", &[carried]).await;
            assert_eq!(read.body, "1");
            assert!(read.route().starts_with("replica"), "{carried:?} {}", read.route());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_secure_cookie_has_all_attributes() {
    let fixture = with_positions(|b| b.cookie(tower_ryw::CookiePolicy::Secure));
    let written = fixture.put("/v/a", &[], "1").await;
    let cookie = written.header("set-cookie").unwrap();
    for part in ["__Host-ryw=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=86400"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let off = with_positions(|b| b.cookie(tower_ryw::CookiePolicy::Off));
    assert_eq!(off.put("/v/a", &[], "1").await.header("set-cookie"), None);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_seen_under_a_rotated_session() {
    let fixture = with_positions(|b| b).settled().await;
    let cookie = fixture.put("/v/a", &[], "1").await.cookie().unwrap();
    // Logged in: the application names a session now, the browser still has its cookie.
    let read = fixture.get("/v/a", &[session("user"), ("cookie", &cookie)]).await;
    assert_eq!(read.body, "1");
    // A write under the new name is seen by the old cookie as well.
    fixture.put("/v/b", &[session("user"), ("cookie", &cookie)], "2").await;
    assert_eq!(fixture.get("/v/b", &[("cookie", &cookie)]).await.body, "2");
    assert_eq!(fixture.get("/v/b", &[session("user")]).await.body, "2");
}

#[tokio::test(start_paused = true)]
async fn older_cookies_that_overtake_newer_ones_lose_nothing() {
    let fixture = with_positions(|b| b).settled().await;
    let first = fixture.put("/v/a", &[], "1").await.cookie().unwrap();
    fixture.put("/v/a", &[("cookie", &first)], "2").await;
    // The second answer arrived first: the browser is left with the older cookie.
    assert_eq!(fixture.get("/v/a", &[("cookie", &first)]).await.body, "2");
}

#[tokio::test(start_paused = true)]
async fn tenants_do_not_share_sessions() {
    let tenant = |head: tower_ryw::RequestHead<'_>| head.uri.query()?.parse().ok();
    let fixture = with_positions(|b| b.tenant(tenant)).settled().await;
    for tenant in ["acme", "other"] {
        // Both tenants' sessions of this name are known to be fresh before the write.
        fixture.get(&format!("/v/a?{tenant}"), &[session("me")]).await;
    }
    tokio::time::sleep(LAG * 3).await;
    let written = fixture.put("/v/a?acme", &[session("me")], "1").await;
    assert_eq!(fixture.get("/v/a?acme", &[session("me")]).await.body, "1");
    assert_eq!(fixture.get("/v/a?other", &[session("me")]).await.body, "nothing");
    // A token of one tenant makes nobody a session of another; where it says that something was written, that is seen.
    let token = written.header("ryw-token").unwrap();
    let read = fixture.get("/v/a?other", &[("ryw-token", token)]).await;
    assert!(read.route().starts_with("primary;reason=unknown-marks"), "{}", read.route());
    tokio::time::sleep(LAG * 2).await;
    let read = fixture.get("/v/a?other", &[("ryw-token", token)]).await;
    assert!(read.route().starts_with("replica"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_nothing() {
    let fixture = with_positions(|b| b);
    fixture.put("/v/a", &[session("me")], "1").await;
    // Another instance over the same database, which has never heard of the session.
    let restarted = super::harness::Fixture {
        app: super::harness::values(fixture.store.clone())
            .layer(tower_ryw::RywLayer::builder().positions(fixture.store.topology().clone()).build().unwrap()),
        store: fixture.store.clone(),
    };
    let read = restarted.get("/v/a", &[session("me")]).await;
    assert_eq!(read.body, "1", "{}", read.route());
    tokio::time::sleep(LAG * 2).await;
    let read = restarted.get("/v/a", &[session("me")]).await;
    assert!(read.route().starts_with("replica"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn without_positions_a_start_holds_everybody_for_a_window() {
    let fixture = with_window(|b| b.window(Duration::from_secs(4)));
    fixture.store.put("t", "a", Some("1".into())).unwrap();
    assert_eq!(fixture.get("/v/a", &[session("me")]).await.body, "1");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert!(read.route().starts_with("replica;reason=no-marks"), "{}", read.route());
}
