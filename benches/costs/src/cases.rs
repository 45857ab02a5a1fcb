//! What is compared: the layer in each of its situations, and what others add.

use std::{error::Error, sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use ryw_testing::lagging::LaggingStore;
use tokio::runtime::Runtime;
use tower::{layer::util::Identity, service_fn};
use tower_governor::{GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor};
use tower_http::{
    add_extension::AddExtensionLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
};
use tower_ryw::{RywContext, RywLayer};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use crate::bench::{Answer, Asked, Bench, answered, bench, handler};

/// One line of the table.
#[derive(Debug)]
pub struct Case {
    /// What is measured.
    pub name: &'static str,
    /// A short name, for baselines and plots.
    pub id: &'static str,
    /// Whether it is this project's own.
    pub ours: bool,
    /// With the layer.
    pub with: Box<dyn Bench>,
    /// The same requests to the same service without it.
    pub without: Box<dyn Bench>,
}

const SESSION: &str = "x-session-id";

/// All of them, with whatever they need in the background on this runtime.
pub struct Cases {
    /// In the order of the table.
    pub all: Vec<Case>,
    /// Where their background tasks run, when they are given a turn.
    pub runtime: Runtime,
    _replicated: LaggingStore,
}

impl std::fmt::Debug for Cases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cases").field("all", &self.all).finish_non_exhaustive()
    }
}

impl Cases {
    /// Everything warm: sessions exist, floors are settled, keys are known.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let replicated = {
            let _entered = runtime.enter();
            LaggingStore::builder().replicas(1).lag(Duration::from_millis(1)).start()
        };
        let mut all = peers(&runtime)?;
        all.extend(ours(&runtime, &replicated)?);
        for case in &mut all {
            for bench in [&mut case.with, &mut case.without] {
                for _ in 0..3 {
                    bench.prime(&runtime)?;
                }
            }
        }
        Ok(Self { all, runtime, _replicated: replicated })
    }
}

fn case(id: &'static str, name: &'static str, asked: &Asked, with: Box<dyn Bench>) -> Case {
    let without = bench(Identity::new(), handler(asked.answer), asked.clone());
    Case { name, id, ours: name.starts_with("tower-ryw"), with, without }
}

fn peers(runtime: &Runtime) -> Result<Vec<Case>, Box<dyn Error>> {
    let asked = Asked::get(None);
    let done = || handler(Answer::Done);
    let request_ids = (SetRequestIdLayer::x_request_id(MakeRequestUuid), PropagateRequestIdLayer::x_request_id());

    // A browser that has a session, as tower-sessions keeps it: over plain http, so that nothing but the id is sent.
    let sessions = || SessionManagerLayer::new(MemoryStore::default()).with_secure(false);
    let known = sessions();
    let cookie = cookie_of(&bench(known.clone(), service_fn(insert), asked.clone()).prime(runtime)?)?;
    let with_cookie = Asked::get(Some(("cookie", cookie.clone())));
    let put = Asked::put(None, Answer::Done);
    let put_cookie = Asked::put(Some(("cookie", cookie)), Answer::Done);

    let limits =
        GovernorConfigBuilder::default().per_nanosecond(1).burst_size(1_000_000).key_extractor(BySession).finish();
    let governor = GovernorLayer::new(Arc::new(limits.ok_or("a rate limit of nothing")?));
    let session = Asked::get(Some((SESSION, HeaderValue::from_static("bench"))));
    Ok(vec![
        case(
            "add_extension",
            "tower-http AddExtension",
            &asked,
            bench(AddExtensionLayer::new(Arc::<str>::from("x")), done(), asked.clone()),
        ),
        case(
            "request_id",
            "tower-http SetRequestId, PropagateRequestId",
            &asked,
            bench(request_ids, done(), asked.clone()),
        ),
        case(
            "trace",
            "tower-http TraceLayer, nobody listening",
            &asked,
            bench(TraceLayer::new_for_http(), done(), asked.clone()),
        ),
        case(
            "sessions_untouched",
            "tower-sessions, untouched, no cookie",
            &asked,
            bench(sessions(), done(), asked.clone()),
        ),
        case(
            "sessions_untouched_cookie",
            "tower-sessions, untouched, with its cookie",
            &with_cookie,
            bench(known.clone(), done(), with_cookie.clone()),
        ),
        case(
            "sessions_insert_new",
            "tower-sessions, insert, new session",
            &put,
            bench(sessions(), service_fn(insert), put.clone()),
        ),
        case(
            "sessions_insert",
            "tower-sessions, insert, known session",
            &put_cookie,
            bench(known, service_fn(insert), put_cookie.clone()),
        ),
        case("governor", "tower_governor, by session", &session, bench(governor, done(), session.clone())),
    ])
}

fn ours(runtime: &Runtime, replicated: &LaggingStore) -> Result<Vec<Case>, Box<dyn Error>> {
    let windowed = RywLayer::new();
    let positioned = RywLayer::builder().positions(replicated.topology().clone()).build()?;
    let named = |name| Some((SESSION, HeaderValue::from_static(name)));
    let nobody = Asked::get(None);
    let stranger = Asked::get(named("stranger"));
    let writer = Asked::get(named("writer"));
    let position = replicated.put("t", "k", Some("v".into()))?;
    let tells = service_fn(move |_: Request<Body>| {
        if let Some(ryw) = RywContext::current() {
            ryw.mark_written_at(position);
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(answered(Answer::Done)))
    });
    // A mark in the store for one session, and the token that says the same for another.
    bench(positioned.clone(), tells, Asked::put(named("writer"), Answer::Done)).prime(runtime)?;
    let carrier = Asked::get(named("carrier"));
    // Nothing is unknown any more once it has read.
    bench(positioned.clone(), handler(Answer::Done), carrier).prime(runtime)?;
    let headers = bench(positioned.clone(), tells, Asked::put(named("carrier"), Answer::Done)).prime(runtime)?;
    let token = headers.get("ryw-token").ok_or("a write without a token")?.clone();
    let carrier = Asked::get(Some(("ryw-token", token)));
    let put = Asked::put(named("writer"), Answer::Done);
    let fails = Asked::put(named("unlucky"), Answer::Failed);
    let done = || handler(Answer::Done);
    Ok(vec![
        case("passthrough", "tower-ryw, passthrough", &nobody, bench(positioned.clone(), done(), nobody.clone())),
        case(
            "read_unmarked",
            "tower-ryw, read, session without marks",
            &stranger,
            bench(positioned.clone(), done(), stranger.clone()),
        ),
        case("read_marked", "tower-ryw, read, local mark", &writer, bench(positioned.clone(), done(), writer.clone())),
        case("read_token", "tower-ryw, read, token", &carrier, bench(positioned.clone(), done(), carrier.clone())),
        case("write", "tower-ryw, write, local mark for a window", &put, bench(windowed.clone(), done(), put.clone())),
        case(
            "write_told",
            "tower-ryw, write, position told by the handler",
            &put,
            bench(positioned, tells, put.clone()),
        ),
        case(
            "read_window",
            "tower-ryw, read within the window",
            &writer,
            bench(windowed.clone(), done(), writer.clone()),
        ),
        case(
            "unknown",
            "tower-ryw, write, unknown outcome",
            &fails,
            bench(windowed, handler(Answer::Failed), fails.clone()),
        ),
    ])
}

async fn insert(request: Request<Body>) -> Result<Response<Body>, tower_sessions::session::Error> {
    if let Some(session) = request.extensions().get::<Session>() {
        session.insert("written", 7_u64).await?;
    }
    Ok(answered(Answer::Done))
}

fn cookie_of(headers: &HeaderMap) -> Result<HeaderValue, Box<dyn Error>> {
    let cookie = headers.get(header::SET_COOKIE).ok_or("a session without a cookie")?.to_str()?;
    Ok(HeaderValue::from_str(cookie.split(';').next().unwrap_or_default())?)
}

#[derive(Clone, Copy, Debug)]
struct BySession;

impl KeyExtractor for BySession {
    type Key = HeaderValue;

    fn extract<T>(&self, request: &Request<T>) -> Result<HeaderValue, GovernorError> {
        fn session(headers: &HeaderMap) -> Option<&HeaderValue> {
            headers.get(SESSION)
        }
        session(request.headers()).cloned().ok_or(GovernorError::UnableToExtractKey)
    }
}
