//! What is logged, and how often.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::{Router, routing::any};
use parking_lot::Mutex;
use ryw_core::{Keyring, Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey};
use ryw_core::{Unsettled, Update};
use tokio::time::advance;
use tower::ServiceExt;
use tower_ryw::{CookiePolicy, RywLayer};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

use crate::harness::{answer, request, session};

/// Lines from INFO on, with their fields.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

type Line = BTreeMap<&'static str, String>;

struct Fields(Line);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= Level::INFO {
            let mut fields = Fields(Line::new());
            event.record(&mut fields);
            self.0.lock().push(fields.0);
        }
    }
}

impl Lines {
    fn of(&self, message: &str) -> Vec<Line> {
        let lines = std::mem::take(&mut *self.0.lock());
        lines.into_iter().filter(|line| line["message"] == message).collect()
    }
}

fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(Registry::default().with(lines.clone()));
    (lines, guard)
}

async fn send(app: &Router, method: &str, times: usize) {
    for _ in 0..times {
        answer(app.clone().oneshot(request(method, "/", &[session("secret-name")], "")).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn decisions_are_fields_and_not_too_many() {
    let (lines, _listening) = listen();
    let layer = RywLayer::builder().log_decisions(true).build().unwrap();
    let app = Router::new().route("/", any(|| async { "" })).layer(layer);
    send(&app, "POST", 1).await;
    let logged = lines.of("request routed");
    let names: Vec<_> = logged[0].keys().copied().collect();
    let expected =
        ["achieved", "level", "message", "path", "primary", "proven", "read", "reason", "session", "waited_ms"];
    assert_eq!(names, expected);
    assert_eq!((&*logged[0]["reason"], &*logged[0]["level"]), ("\"write\"", "\"RYW\""));
    assert!(!format!("{logged:?}").contains("secret-name"));
    send(&app, "GET", 300).await;
    assert_eq!(lines.of("request routed").len(), 99, "a hundred in this second");
    advance(Duration::from_secs(1)).await;
    send(&app, "GET", 300).await;
    assert_eq!(lines.of("request routed").len(), 100, "and in the next");
}

#[tokio::test(start_paused = true)]
async fn a_decision_tells_path_and_session_and_nothing_secret() {
    let (lines, _listening) = listen();
    let layer = RywLayer::builder().log_decisions(true).cookie(CookiePolicy::Off).build().unwrap();
    let app = Router::new().fallback(any(|| async { "" })).layer(layer);
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let answer = answer(app.clone().oneshot(request(method, path, headers, "")).await).await;
        let logged = lines.of("request routed");
        assert_eq!(logged.len(), 1, "{logged:?}");
        (answer, logged[0].clone())
    };
    let (born, first) = ask("POST", "/notes/7?key=hunter2", &[]).await;
    assert_eq!(&*first["path"], "\"/notes/7\"", "without its query");
    let tag = &first["session"];
    assert!(tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()), "a session that begins: {first:?}");
    let (name, token) = (born.header("x-session-id").unwrap(), born.header("ryw-token").unwrap());
    for carried in [session(name), ("ryw-token", token)] {
        let (_, next) = ask("GET", "/notes/7", &[carried]).await;
        assert_eq!(&next["session"], tag, "the same wherever it is told");
        assert!(!format!("{first:?}{next:?}").contains(name) && !format!("{next:?}").contains(&token[..20]));
    }
    let (_, other) = ask("GET", &format!("/{}", "x".repeat(5000)), &[session("other")]).await;
    assert!(other["path"].len() < 210 && other["session"] != *tag, "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn decisions_are_not_logged_unless_that_was_asked_for() {
    let (lines, _listening) = listen();
    let app = Router::new().route("/", any(|| async { "" })).layer(RywLayer::new());
    send(&app, "POST", 3).await;
    assert_eq!(lines.of("request routed").len(), 0);
}

/// Takes nothing, without being away.
#[derive(Debug)]
struct Full;

fn refused<T>() -> StoreFuture<T> {
    StoreFuture::failed(StoreError::new(StoreErrorKind::TooFewCopies))
}

impl MarkStore for Full {
    fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
        refused()
    }

    fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
        refused()
    }

    fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
        refused()
    }

    fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
        refused()
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_is_not_told_of_with_each_write() {
    let (lines, _listening) = listen();
    let layer = RywLayer::builder().store(Full).signing_keys(Keyring::random().unwrap()).build().unwrap();
    let app = Router::new().route("/", any(|| async { "" })).layer(layer);
    send(&app, "POST", 1).await;
    assert_eq!(lines.0.lock().len(), 1, "one line for one write: {lines:?}");
    assert_eq!(lines.of("a mark is degraded")[0]["what"], "\"not-stored\"");
    send(&app, "POST", 1000).await;
    assert_eq!(lines.0.lock().len(), 0, "nothing has changed");
    advance(Duration::from_secs(10)).await;
    send(&app, "POST", 1000).await;
    let lines = std::mem::take(&mut *lines.0.lock());
    assert!(matches!(&*lines, [line] if line["marks"] == "1001"), "one line, and how many: {lines:?}");
}

/// A read of nobody is passed through until its service asks where to read, as pools do: from then on it is one like all others.
#[tokio::test(start_paused = true)]
async fn a_read_of_nobody_is_told_once_its_service_asks_where_to_read() {
    let (lines, _listening) = listen();
    let took = Arc::new(Mutex::new(Vec::new()));
    let layer = RywLayer::builder().log_decisions(true).observer(Took(Arc::clone(&took))).build().unwrap();
    let asking = async || {
        tokio::time::sleep(Duration::from_millis(7)).await;
        format!("{:?}", tower_ryw::RywContext::current().map(|context| context.route()))
    };
    let app = Router::new().route("/asks", any(asking)).route("/does-not", any(|| async { "" })).layer(layer);
    let silent = answer(app.clone().oneshot(request("GET", "/does-not", &[], "")).await).await;
    assert_eq!((silent.header("ryw-route"), silent.header("x-consistency-enforced")), (None, None));
    assert_eq!(lines.of("request routed").len() + took.lock().len(), 0);
    // Nothing at all, and what names no session.
    for headers in [&[][..], &[("cookie", "other=1")]] {
        let told = answer(app.clone().oneshot(request("GET", "/asks?key=hunter2", headers, "")).await).await;
        assert!(told.route().starts_with("replica;reason=no-marks"), "{told:?}");
        let logged = lines.of("request routed");
        assert!(matches!(&*logged, [line] if line["path"] == "\"/asks\""), "{logged:?}");
        assert_eq!(std::mem::take(&mut *took.lock()), [Duration::from_millis(7)], "from its arrival");
    }
}

/// How long requests took.
#[derive(Debug)]
struct Took(Arc<Mutex<Vec<Duration>>>);

impl tower_ryw::Observe for Took {
    fn routed(&self, event: &tower_ryw::Routed<'_>) {
        self.0.lock().push(event.took);
    }
}
