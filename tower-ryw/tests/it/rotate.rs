//! A login gives the session another name: what was written before stays visible.

use axum::{extract::Path, http::StatusCode, routing::post};
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{CookiePolicy, Ladder, RywContext, RywLayer};

use crate::{
    cookies::Jar,
    harness::{Fixture, LAG, session, values},
};

/// Nothing is written: whatever is visible afterwards was carried over.
async fn login(Path(name): Path<String>) -> StatusCode {
    let ryw = RywContext::current().unwrap();
    ryw.mark_not_written();
    ryw.rotate_session(&name.parse().unwrap()).await;
    StatusCode::NO_CONTENT
}

/// As a service does that says nothing to the layer.
async fn login_without_a_word(Path(name): Path<String>) -> [(&'static str, String); 1] {
    RywContext::current().unwrap().mark_not_written();
    [("x-session-id", name)]
}

async fn fixture() -> Fixture {
    let store = LaggingStore::builder().replicas(1).lag(LAG).start();
    let layer = RywLayer::builder()
        .cookie(CookiePolicy::InsecureForDevelopment)
        .positions(store.topology().clone())
        .ladder(Ladder::new().wait(std::time::Duration::ZERO))
        .build()
        .unwrap();
    let routes = values(store.clone());
    let routes = routes.route("/login/{name}", post(login)).route("/plain/{name}", post(login_without_a_word));
    Fixture { store, app: routes.layer(layer) }.settled().await
}

#[tokio::test(start_paused = true)]
async fn what_a_guest_has_written_the_user_sees_by_cookie_by_token_and_by_name() {
    let fixture = fixture().await;
    let guest = fixture.put("/v/a", &[], "1").await;
    let cookie = guest.cookie().unwrap();
    let answer = fixture.send("POST", "/login/user-17", &[("cookie", &cookie)], "").await;
    assert_eq!(answer.header("x-session-id"), Some("user-17"), "{answer:?}");
    let token = answer.header("ryw-token").unwrap();
    let rotated = answer.cookie().expect("the browser's cookie is replaced");
    assert_ne!(rotated, cookie);
    for carried in [("cookie", &*rotated), ("ryw-token", token), session("user-17")] {
        assert_eq!(fixture.get("/v/a", &[carried]).await.body, "1", "{carried:?}");
    }
    assert_eq!(fixture.get("/v/a", &[session("somebody")]).await.body, "nothing", "the replicas do lag");
}

#[tokio::test(start_paused = true)]
async fn without_a_word_to_the_layer_it_is_gone() {
    let fixture = fixture().await;
    let guest = fixture.put("/v/a", &[], "1").await;
    fixture.send("POST", "/plain/user-17", &[("cookie", &guest.cookie().unwrap())], "").await;
    assert_eq!(fixture.get("/v/a", &[session("user-17")]).await.body, "nothing");
}

#[tokio::test(start_paused = true)]
async fn the_store_knows_what_the_client_does_not_carry() {
    let fixture = fixture().await;
    fixture.put("/v/a", &[session("guest")], "1").await;
    let answer = fixture.send("POST", "/login/user-17", &[session("guest")], "").await;
    assert!(answer.cookie().is_some() && answer.header("ryw-token").is_some(), "{answer:?}");
    for carried in [("ryw-token", answer.header("ryw-token").unwrap()), session("user-17")] {
        assert_eq!(fixture.get("/v/a", &[carried]).await.body, "1", "{carried:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_afterwards_is_the_new_sessions() {
    let fixture = fixture().await;
    let guest = fixture.put("/v/a", &[], "1").await.cookie().unwrap();
    let user = fixture.send("POST", "/login/user-17", &[("cookie", &guest)], "").await.cookie().unwrap();
    tokio::time::sleep(3 * LAG).await;
    let next = fixture.put("/v/b", &[("cookie", &user)], "2").await;
    assert_eq!(fixture.get("/v/b", &[session("user-17")]).await.body, "2", "{next:?}");
    assert_eq!(
        fixture.get("/v/b", &[("cookie", &guest)]).await.body,
        "nothing",
        "the guest's name is nobody's any more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_without_a_session_before_it_names_one() {
    let fixture = fixture().await;
    let answer = fixture.send("POST", "/login/user-17", &[], "").await;
    assert_eq!(answer.header("x-session-id"), Some("user-17"), "{answer:?}");
    let cookie = answer.cookie().expect("a cookie");
    fixture.put("/v/a", &[("cookie", &cookie)], "1").await;
    assert_eq!(fixture.get("/v/a", &[session("user-17")]).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn a_browser_goes_on_as_the_user_alone() {
    let (fixture, mut jar) = (fixture().await, Jar::default());
    jar.take(&fixture.put("/v/a", &[], "1").await);
    let guest = jar.clone();
    jar.take(&fixture.send("POST", "/login/user-17", &[("cookie", &jar.header())], "").await);
    assert_eq!(jar.0.len(), 2, "the session's, and the one that it began with: {jar:?}");
    tokio::time::sleep(3 * LAG).await;
    jar.take(&fixture.put("/v/b", &[("cookie", &jar.header())], "2").await);
    assert_eq!(fixture.get("/v/b", &[session("user-17")]).await.body, "2");
    assert_eq!(
        fixture.get("/v/b", &[("cookie", &guest.header())]).await.body,
        "nothing",
        "what the guest kept is nobody's"
    );
}
