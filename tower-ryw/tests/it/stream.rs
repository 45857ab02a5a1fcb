//! A session that goes on after its request: each message is decided anew, and recorded before it is answered.

use std::time::Duration;

use axum::{Extension, Router, routing::any};
use http::StatusCode;
use ryw_testing::lagging::LaggingStore;
use tokio::{sync::mpsc, time::Instant};
use tower::ServiceExt;
use tower_ryw::{
    CookiePolicy, Intent, Ladder, Level, LocalStore, Route, RywContext, RywLayer, RywLayerBuilder, RywMessage,
    RywStream, StreamErrorKind,
};

use crate::{
    harness::{Answer, LAG, answer, level, request, session, values},
    slow_store::{How, Remote},
};

/// A service over a store whose replica is 1 s late, and a way to open streams of it.
struct World {
    store: LaggingStore,
    app: Router,
    layer: RywLayer,
    opened: mpsc::UnboundedReceiver<RywStream>,
}

fn world(configure: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> World {
    let store = LaggingStore::builder().replicas(1).lag(LAG).start();
    let builder = RywLayer::builder().positions(store.topology().clone()).ladder(Ladder::new().wait(Duration::ZERO));
    let layer = configure(builder.cookie(CookiePolicy::InsecureForDevelopment)).build().unwrap();
    let (sender, opened) = mpsc::unbounded_channel();
    let open = |Extension(sender): Extension<mpsc::UnboundedSender<RywStream>>, context: RywContext| async move {
        sender.send(context.stream()).unwrap();
        StatusCode::OK
    };
    let opens = Router::new().route("/open", any(open)).layer(Extension(sender));
    let app = opens.merge(values(store.clone())).layer(layer.clone());
    World { store, app, layer, opened }
}

impl World {
    /// A new layer knows that it knows nothing; one read of a session settles that.
    async fn settled(self) -> Self {
        for n in 0..2000 {
            self.send("GET", "/v/x", &[("x-session-id", &format!("settle{n}"))]).await;
        }
        self
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        answer(self.app.clone().oneshot(request(method, path, headers, "new")).await).await
    }

    async fn open(&mut self, headers: &[(&str, &str)]) -> RywStream {
        self.send("GET", "/open", headers).await;
        self.opened.recv().await.unwrap()
    }

    /// What a message sees of a value.
    fn read(&self, message: &RywMessage, key: &str) -> Option<String> {
        let value = self.store.get(&message.context().route(), "t", key)?;
        Some(String::from_utf8_lossy(&value).into())
    }

    fn write(&self, key: &str) {
        self.store.put("t", key, Some("new".into())).unwrap();
    }
}

fn on_replica(message: &RywMessage) -> bool {
    matches!(message.context().route(), Route::Replica { .. })
}

#[tokio::test(start_paused = true)]
async fn each_message_is_decided_anew() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    let before = stream.read().await.unwrap();
    assert!(on_replica(&before) && world.read(&before, "a").is_none());
    // Another tab of the session writes, long after the stream has been opened.
    world.send("PUT", "/v/a", &[session("me")]).await;
    assert!(on_replica(&before), "what was decided stays");
    let after = stream.read().await.unwrap();
    assert_eq!(world.read(&after, "a").as_deref(), Some("new"));
    assert_eq!(after.finish().await.reason.word(), "behind");
    tokio::time::sleep(2 * LAG).await;
    let late = stream.read().await.unwrap();
    assert!(on_replica(&late), "{late:?}");
    assert_eq!(world.read(&late, "a").as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn what_a_message_wrote_is_seen_by_the_session_everywhere() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    let message = stream.write().await.unwrap();
    assert_eq!(message.context().route(), Route::Primary);
    world.write("a");
    let delivered = message.finish().await;
    assert!(delivered.enforced && delivered.route == Route::Primary);
    let token = delivered.token.unwrap();
    assert_eq!(stream.token().as_ref().map(String::len), Some(token.len()));
    // By its name, by its token alone, by the next message.
    assert_eq!(world.send("GET", "/v/a", &[session("me")]).await.body, "new");
    assert_eq!(world.send("GET", "/v/a", &[("ryw-token", &token)]).await.body, "new");
    let next = stream.read().await.unwrap();
    assert_eq!(world.read(&next, "a").as_deref(), Some("new"));
    assert!(next.finish().await.token.is_none(), "the client has it already");
    assert_eq!(world.send("GET", "/v/a", &[]).await.body, "nothing", "a stranger reads from the replica");
}

#[tokio::test(start_paused = true)]
async fn the_current_context_is_the_messages() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    let message = stream.write().await.unwrap();
    let inside = async || RywContext::current().map(|context| context.route());
    assert_eq!(message.scope(inside()).await, Some(Route::Primary));
    assert_eq!(inside().await, None);
    let message = stream.read().await.unwrap();
    let (_, delivered) = message
        .run(async {
            // It turns out to write.
            RywContext::current().unwrap().mark_written();
            world.write("a");
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    assert!(delivered.token.is_some());
    assert_eq!(world.send("GET", "/v/a", &[session("me")]).await.body, "new");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_cut_short_leaves_an_unknown_outcome() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    let pending = "primary;reason=pending-write";
    drop(stream.read().await.unwrap());
    assert!(!world.send("GET", "/v/a", &[session("me")]).await.route().starts_with(pending));
    let message = stream.write().await.unwrap();
    message.context().mark_not_written();
    drop(message);
    assert!(!world.send("GET", "/v/a", &[session("me")]).await.route().starts_with(pending));
    let message = stream.write().await.unwrap();
    world.write("a");
    assert!(message.run(async { Err::<(), _>("broke off") }).await.is_err());
    let read = world.send("GET", "/v/a", &[session("me")]).await;
    assert!(read.route().starts_with(pending), "{}", read.route());
    // The client that carries its token is told as well.
    let token = stream.token().unwrap();
    assert_eq!(world.send("GET", "/v/a", &[("ryw-token", &token)]).await.body, "new");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_finished_once_the_store_has_its_mark() {
    let mut world = world(|b| b.store(Remote { how: How::Slow, local: LocalStore::new() })).settled().await;
    let stream = world.open(&[session("me")]).await;
    let message = stream.write().await.unwrap();
    world.write("a");
    let started = Instant::now();
    message.finish().await;
    assert!(started.elapsed() >= Duration::from_millis(50), "{:?}", started.elapsed());
    assert_eq!(world.send("GET", "/v/a", &[session("me")]).await.body, "new");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_its_deadline_and_the_promise() {
    let mut world = world(|b| b.store(Remote { how: How::Hangs, local: LocalStore::new() })).settled().await;
    let stream = world.open(&[session("me")]).await;
    let started = Instant::now();
    let message = stream.write().await.unwrap();
    world.write("a");
    let delivered = message.finish().await;
    assert!(!delivered.enforced && delivered.token.is_some(), "{delivered:?}");
    assert!(started.elapsed() <= Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_born_with_what_there_is_to_remember() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[]).await;
    stream.read().await.unwrap().finish().await;
    assert!(stream.token().is_none());
    let (one, other) = (stream.write().await.unwrap(), stream.write().await.unwrap());
    world.write("a");
    let (one, other) = tokio::join!(one.finish(), other.finish());
    let [one, other] = [one, other].map(|delivered| delivered.token.unwrap());
    let opened = [&one, &other].map(|token| ryw_core::Token::peek(token).unwrap().token);
    assert_eq!(opened[0].session, opened[1].session, "both are of the same session");
    assert_eq!(world.send("GET", "/v/a", &[("ryw-token", &one)]).await.body, "new");
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_stream_are_monotonic_where_the_level_is() {
    let mut world = world(|b| b.level(Level::MonotonicReads)).settled().await;
    let stream = world.open(&[]).await;
    let write = stream.write().await.unwrap();
    world.write("a");
    write.finish().await;
    let read = stream.read().await.unwrap();
    assert_eq!(world.read(&read, "a").as_deref(), Some("new"));
    read.finish().await;
    let token = stream.token().unwrap();
    let read = world.send("GET", "/v/a", &[("ryw-token", &token), level("MONOTONIC")]).await;
    assert_eq!(read.body, "new");
}

#[tokio::test(start_paused = true)]
async fn the_response_tells_of_messages_that_ended_before_it() {
    let store = LaggingStore::builder().replicas(1).lag(LAG).start();
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .ladder(Ladder::new().wait(Duration::ZERO))
        .classify(|_: tower_ryw::RequestHead<'_>| Intent::Read)
        .build()
        .unwrap();
    let (handlers, reads) = (store.clone(), values(store.clone()));
    let upload = async move |context: RywContext| {
        let stream = context.stream();
        let message = stream.write().await.unwrap();
        handlers.put("t", "a", Some("new".into())).unwrap();
        message.finish().await;
        assert_eq!(context.route(), Route::Primary, "the rest of the request sees it too");
    };
    let app = Router::new().route("/upload", any(upload)).merge(reads).layer(layer);
    let send = async |method, path, headers: &[(&str, &str)]| {
        answer(app.clone().oneshot(request(method, path, headers, "")).await).await
    };
    let uploaded = send("POST", "/upload", &[session("me")]).await;
    assert_eq!(uploaded.status, StatusCode::OK);
    let token = uploaded.header("ryw-token").unwrap();
    assert_eq!(send("GET", "/v/a", &[("ryw-token", token)]).await.body, "new");
}

#[tokio::test(start_paused = true)]
async fn a_client_can_bring_a_token_in_a_message() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    let token = world.send("PUT", "/v/a", &[session("other")]).await.header("ryw-token").unwrap().to_owned();
    let read = stream.read().await.unwrap();
    assert!(on_replica(&read) && world.read(&read, "a").is_none());
    stream.join_token(&token);
    let read = stream.read().await.unwrap();
    assert_eq!(world.read(&read, "a").as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_forged_token_in_a_message_is_counted_and_makes_nothing_known() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    let forged = "A".repeat(100);
    stream.join_token(&forged);
    assert_eq!(world.layer.stats().snapshot().tokens_refused, 1);
    world.write("a");
    let read = stream.read().await.unwrap();
    assert!(!on_replica(&read), "what is unknown is answered by a sample, which the replica has not reached");
    read.finish().await;
    tokio::time::sleep(2 * LAG).await;
    assert!(on_replica(&stream.read().await.unwrap()), "and known then");
}

#[tokio::test(start_paused = true)]
async fn made_up_tokens_in_messages_take_nothing_from_the_primary() {
    let mut world = world(|b| b.unproven_reads(0)).settled().await;
    let stream = world.open(&[session("me")]).await;
    for n in 0..60 {
        world.write("a");
        stream.join_token("made up");
        let read = stream.read().await.unwrap();
        assert!(on_replica(&read), "{n}");
        assert!(!read.finish().await.enforced, "{n}: and says so");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_can_serve_is_refused_and_the_stream_goes_on() {
    let mut world = world(|b| b.ladder(Ladder::new().wait(Duration::ZERO).primary(false))).settled().await;
    let stream = world.open(&[session("me")]).await;
    let message = stream.write().await.unwrap();
    world.write("a");
    message.finish().await;
    let refused = stream.read().await.unwrap_err();
    assert_eq!((refused.kind(), refused.reason().unwrap().word()), (StreamErrorKind::NotFreshEnough, "behind"));
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));
    assert!(refused.to_string().contains("retry"), "{refused}");
    assert!(world.layer.stats().snapshot().refused > 0);
    tokio::time::sleep(2 * LAG).await;
    assert!(on_replica(&stream.read().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_mark_made_after_the_headers_left_is_in_the_streams_token() {
    let mut world = world(|b| b).settled().await;
    let stream = world.open(&[session("me")]).await;
    world.write("a");
    stream.context().mark_written();
    assert_eq!(world.send("GET", "/v/a", &[session("me")]).await.body, "new");
    let token = stream.token().unwrap();
    assert_eq!(world.send("GET", "/v/a", &[("ryw-token", &token)]).await.body, "new");
}

#[tokio::test(start_paused = true)]
async fn an_event_id_brings_the_token_back() {
    let mut world = world(|b| b.event_ids(true)).settled().await;
    let stream = world.open(&[]).await;
    assert_eq!(stream.event_id("7"), "7;");
    let message = stream.write().await.unwrap();
    world.write("a");
    message.finish().await;
    let id = stream.event_id("or\r\nder;4\u{0}2");
    assert_eq!(RywStream::own_event_id(&id), "order;42");
    // The browser connects again, with what it saw last.
    let again = world.open(&[("last-event-id", &id)]).await;
    let read = again.read().await.unwrap();
    assert_eq!(world.read(&read, "a").as_deref(), Some("new"));
    let refused = world.layer.stats().snapshot().tokens_refused;
    for (nothing, counts) in [("7;", 0), ("", 0), ("seven", 1), (";;", 0), ("x;\u{fc}", 1)] {
        let before = world.layer.stats().snapshot().tokens_refused;
        world.send("GET", "/v/a", &[("last-event-id", nothing)]).await;
        assert_eq!(world.layer.stats().snapshot().tokens_refused - before, counts, "{nothing}");
    }
    assert_eq!(refused, 0);
    // Unless it is asked for, an id is the service's own.
    let world = self::world(|b| b).settled().await;
    world.send("GET", "/v/a", &[("last-event-id", "seven")]).await;
    assert_eq!(world.layer.stats().snapshot().tokens_refused, 0);
}
