//! What a trace says of a request.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use tower_ryw::Ladder;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::harness::{LAG, session, with_positions};

const ME: (&str, &str) = session("me");

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone, Debug, Default)]
struct Seen {
    id: u64,
    name: &'static str,
    parent: Option<u64>,
    fields: Fields,
    closed: bool,
}

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = attributes.metadata().name();
        self.0.lock().push(Seen { id: id.into_u64(), name, parent, fields, closed: false });
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        self.of(id, |seen| values.record(&mut seen.fields));
    }

    fn on_close(&self, id: span::Id, _: Context<'_, S>) {
        self.of(&id, |seen| seen.closed = true);
    }
}

impl Spans {
    fn watch() -> (Self, DefaultGuard) {
        let spans = Self::default();
        let guard = tracing::subscriber::set_default(Registry::default().with(spans.clone()));
        (spans, guard)
    }

    fn of(&self, id: &span::Id, change: impl FnOnce(&mut Seen)) {
        // Numbers are used again.
        if let Some(seen) = self.0.lock().iter_mut().rfind(|seen| seen.id == id.into_u64()) {
            change(seen);
        }
    }

    /// What was seen since the last time; all of it has ended.
    fn take(&self) -> Vec<Seen> {
        let taken = std::mem::take(&mut *self.0.lock());
        assert!(taken.iter().all(|seen| seen.closed), "{taken:?}");
        taken
    }
}

fn of<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    spans.iter().find(|seen| seen.name == name).unwrap_or_else(|| panic!("no {name} in {spans:?}"))
}

/// Those that are told, with their values.
fn check(seen: &Seen, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(seen.fields.0.get(name).map(String::as_str), Some(*value), "{name} of {seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_and_the_reads_after_it_say_what_happened_and_why() {
    let fixture = with_positions(|builder| builder.ladder(Ladder::new().wait(2 * LAG))).settled().await;
    let (spans, _guard) = Spans::watch();
    fixture.put("/v/x", &[ME], "1").await;
    let written = spans.take();
    let (request, record) = (of(&written, "ryw"), of(&written, "ryw.record"));
    check(request, &[("ryw.intent", "write"), ("ryw.route", "primary"), ("ryw.reason", "write")]);
    check(request, &[("ryw.outcome", "written"), ("ryw.achieved", "true"), ("ryw.epoch", "1")]);
    assert_eq!(record.parent, Some(request.id), "{written:?}");
    let mark = &request.fields.0["ryw.recorded"];
    assert!(mark.contains("@1/"), "{mark}");

    fixture.get("/v/x", &[ME, ("x-consistency-level", "RYW")]).await;
    let read = spans.take();
    let request = of(&read, "ryw");
    check(request, &[("ryw.intent", "read"), ("ryw.level", "RYW"), ("ryw.required", mark)]);
    assert!(!request.fields.0.contains_key("ryw.recorded") && !read.iter().any(|seen| seen.name == "ryw.record"));
    match request.fields.0["ryw.reason"].as_str() {
        "waited" => {
            check(request, &[("ryw.route", "replica"), ("ryw.node", "r1")]);
            assert_ne!(request.fields.0["ryw.waited_ms"], "0");
            assert_eq!(of(&read, "ryw.prepare").parent, Some(request.id));
        }
        reason => panic!("{reason}: {request:?}"),
    }

    tokio::time::sleep(2 * LAG).await;
    fixture.get("/v/x", &[ME, ("x-consistency-level", "RYW")]).await;
    let read = spans.take();
    check(of(&read, "ryw"), &[("ryw.reason", "caught-up"), ("ryw.waited_ms", "0"), ("ryw.node", "r1")]);
    assert_eq!(read.len(), 1, "nothing was waited for: {read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told() {
    let fixture = with_positions(|builder| builder);
    let (spans, _guard) = Spans::watch();
    fixture.get("/v/x", &[("x-consistency-level", "PERFECT")]).await;
    check(of(&spans.take(), "ryw"), &[("ryw.refused", "true")]);
}

#[tokio::test(start_paused = true)]
async fn what_the_service_does_is_below_it_and_it_is_below_what_is_around_it() {
    use std::convert::Infallible;
    use tower::{Layer as _, ServiceExt, service_fn};
    use tracing::Instrument;

    let (spans, _guard) = Spans::watch();
    let service = tower_ryw::RywLayer::new().layer(service_fn(async |_: http::Request<()>| {
        tokio::task::yield_now().await;
        tracing::info_span!("query").in_scope(|| ());
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<axum::body::Bytes>::default()))
    }));
    let request = http::Request::post("/").header("x-session-id", "me").body(()).unwrap();
    service.oneshot(request).instrument(tracing::info_span!("server")).await.unwrap();
    let seen = spans.take();
    let (server, request, query) = (of(&seen, "server"), of(&seen, "ryw"), of(&seen, "query"));
    assert_eq!((request.parent, query.parent), (Some(server.id), Some(request.id)), "{seen:?}");
}
