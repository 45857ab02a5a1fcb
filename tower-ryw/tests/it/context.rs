//! What a handler knows and can say.

use std::time::Duration;

use axum::{
    Router,
    http::HeaderValue,
    routing::{get, post},
};
use ryw_core::{Keyring, Marks, Tenant, Token};
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{NodeName, Route, RywContext, RywLayer};

use crate::{
    cluster::{Client, Cluster, at, primary},
    harness::{Fixture, session, values},
};

fn with_routes(store: &LaggingStore, routes: Router) -> Fixture {
    let layer = RywLayer::builder().positions(store.topology().clone()).build().unwrap();
    Fixture { app: values(store.clone()).merge(routes).layer(layer), store: store.clone() }
}

fn store() -> LaggingStore {
    LaggingStore::builder().replicas(1).lag(Duration::from_secs(1)).start()
}

#[tokio::test(start_paused = true)]
async fn a_task_keeps_the_context_only_when_spawned_with_it() {
    let store = store();
    let handler = |context: RywContext| async move {
        let plain = tokio::spawn(async { RywContext::current().is_some() }).await.unwrap();
        let kept = context.spawn(async { RywContext::current().map(|context| context.route()) }).await.unwrap();
        assert_eq!(kept, Some(context.route()));
        assert!(!plain);
        "checked"
    };
    let fixture = with_routes(&store, Router::new().route("/", get(handler)));
    for headers in [&[session("me")][..], &[]] {
        assert_eq!(fixture.get("/", headers).await.body, "checked");
    }
    assert!(RywContext::current().is_none(), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_write_after_the_response_is_marked_when_it_is_told() {
    let store = store();
    let later = store.clone();
    let handler = move |context: RywContext| async move {
        let background = context.clone();
        context.spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            background.mark_written();
            later.put("t", "a", Some("late".into())).unwrap();
            background.mark_written();
        });
    };
    let fixture = with_routes(&store, Router::new().route("/later", get(handler))).settled().await;
    fixture.get("/later", &[session("me")]).await;
    assert!(fixture.get("/v/a", &[session("me")]).await.route().starts_with("replica"));
    tokio::time::sleep(Duration::from_millis(5001)).await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!(read.body, "late", "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_position_that_the_handler_tells_is_taken() {
    let store = store();
    let writes = store.clone();
    let handler = move |context: RywContext| async move {
        let position = writes.put("t", "a", Some("1".into())).unwrap();
        context.mark_written_at(position);
        context.token().unwrap_or_default()
    };
    let fixture = with_routes(&store, Router::new().route("/tell", get(handler))).settled().await;
    let told = fixture.get("/tell", &[session("me")]).await;
    assert_eq!(fixture.get("/v/a", &[session("me")]).await.body, "1");
    // What the handler put into a job carries the write too.
    assert_eq!(fixture.get("/v/a", &[("ryw-token", &told.body)]).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_read_that_writes_gets_a_session() {
    let store = store();
    let writes = store.clone();
    let handler = move || async move {
        let context = RywContext::current().unwrap();
        assert!(matches!(context.route(), Route::Replica { .. }));
        context.mark_written();
        writes.put("t", "a", Some("1".into())).unwrap();
    };
    let fixture = with_routes(&store, Router::new().route("/callback", get(handler))).settled().await;
    let cookie_of = |answer: crate::harness::Answer| answer.header("ryw-token").unwrap().to_owned();
    let token = cookie_of(fixture.get("/callback", &[]).await);
    assert_eq!(fixture.get("/v/a", &[("ryw-token", &token)]).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn who_really_served_is_what_is_told() {
    let store = store();
    let handler = |context: RywContext| async move {
        context.served_by(Route::Primary, tower_ryw::Reason::NoReplica, None);
    };
    let fixture = with_routes(&store, Router::new().route("/fallback", get(handler))).settled().await;
    let read = fixture.get("/fallback", &[session("me")]).await;
    assert_eq!(read.route(), "primary;reason=no-replica;level=ryw");
}

#[tokio::test]
async fn outside_of_the_layer_the_extractor_says_what_is_missing() {
    let store = store();
    let app = Router::new().route("/", get(|_: RywContext| async {}));
    let answer = Fixture { app, store }.get("/", &[]).await;
    assert_eq!(answer.status, 500);
    assert!(tower_ryw::MissingLayer.to_string().contains(".layer(RywLayer::new())"));
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_does_nothing() {
    let store = store();
    let layer = RywLayer::builder().enabled(false).positions(store.topology().clone()).build().unwrap();
    let fixture = Fixture { app: values(store.clone()).layer(layer), store };
    let written = fixture.put("/v/a", &[session("me")], "1").await;
    assert!(written.header("ryw-token").is_none() && written.header("ryw-route").is_none());
}

/// A replica that was fresh enough for the request may not be so for what another service has answered.
#[tokio::test(start_paused = true)]
async fn where_else_a_read_may_go_depends_on_what_calls_have_brought() {
    let cluster = Cluster::start().await;
    let keys = Keyring::random().unwrap();
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let handler = move |context: RywContext| async move {
        let [one, other] = ["r1", "r2"].map(NodeName::from);
        let before = context.without(std::slice::from_ref(&one)).map(|(route, _)| route);
        assert_eq!(before, Some(Route::Replica { node: Some(other) }));
        let session = keys.newest().session(&Tenant::default(), &"me".parse().unwrap());
        let token = Token { session, issued_at: 0, marks: Marks::at(at(1, 95)) }.seal(&keys, &Tenant::default());
        context.join_token(&HeaderValue::try_from(token).unwrap()).await;
        format!("{:?}", context.without(&[one]).map(|(route, _)| route))
    };
    let client = Client::with(&layer, get(handler));
    // What a new store does not know is settled at 80, where the replicas are.
    cluster.set("p", primary(1, 80)).await;
    client.get(&[session("me")]).await;
    cluster.set("p", primary(1, 100)).await;
    let answer = client.send("GET", "/it", &[session("me")]).await;
    assert_eq!(answer.body, "Some(Primary)", "r2 is at 80, and what was called is at 95");
}

/// A job is queued before it is known whether anything is written.
#[tokio::test(start_paused = true)]
async fn a_token_of_a_request_that_does_not_write_leaves_nothing_behind() {
    let store = store();
    let layer = RywLayer::builder().positions(store.topology().clone()).build().unwrap();
    let marks = layer.local_store().clone();
    let token = |ryw: RywContext, written: bool| async move {
        let token = ryw.token().unwrap();
        if !written {
            ryw.mark_not_written();
        }
        token
    };
    let routes = Router::new()
        .route("/refused", post(move |ryw| token(ryw, false)))
        .route("/written", post(move |ryw| token(ryw, true)));
    let fixture = Fixture { app: values(store.clone()).merge(routes).layer(layer), store };
    let refused = fixture.send("POST", "/refused", &[], "").await;
    for name in ["x-session-id", "ryw-token", "set-cookie"] {
        assert_eq!(refused.header(name), None, "{name}");
    }
    assert!(marks.is_empty());
    // The job goes on with it all the same.
    assert_eq!(fixture.get("/v/a", &[("ryw-token", &refused.body)]).await.status, 200);
    let written = fixture.send("POST", "/written", &[], "").await;
    assert!(written.header("x-session-id").is_some() && written.header("set-cookie").is_some());
    assert_eq!(marks.len(), 1);
}
