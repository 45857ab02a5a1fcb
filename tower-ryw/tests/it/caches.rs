//! A shared cache between browsers and the service, as RFC 9111 has it: nobody gets what was another's.

use std::collections::HashMap;

use axum::{
    Router,
    routing::{get, put},
};
use http::{HeaderMap, header};
use tower_ryw::{RywContext, RywLayer};

use crate::harness::{Answer, Fixture, LAG, session, values, with_positions};

/// Keeps what it may, for whoever asks the same.
#[derive(Default)]
struct Cache {
    kept: HashMap<String, Vec<Kept>>,
    hits: usize,
}

struct Kept {
    /// The fields of the request that the answer depended on.
    vary: Vec<(String, Vec<String>)>,
    body: String,
    headers: HeaderMap,
}

fn all(headers: &[(&str, &str)], name: &str) -> Vec<String> {
    headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| (*value).to_owned()).collect()
}

fn list(headers: &HeaderMap, name: header::HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap().split(','));
    values.map(|item| item.trim().to_ascii_lowercase()).collect()
}

impl Cache {
    async fn get(&mut self, fixture: &Fixture, path: &str, headers: &[(&str, &str)]) -> (String, HeaderMap) {
        let variants = self.kept.entry(path.to_owned()).or_default();
        let hit = variants.iter().find(|kept| kept.vary.iter().all(|(name, values)| all(headers, name) == *values));
        if let Some(kept) = hit {
            self.hits += 1;
            return (kept.body.clone(), kept.headers.clone());
        }
        let Answer { headers: answered, body, .. } = fixture.get(path, headers).await;
        let said = list(&answered, header::CACHE_CONTROL);
        let vary = list(&answered, header::VARY);
        if !said.iter().any(|word| word == "private" || word == "no-store") && !vary.contains(&"*".to_owned()) {
            let vary = vary.into_iter().map(|name| (name.clone(), all(headers, &name))).collect();
            variants.push(Kept { vary, body: body.clone(), headers: answered.clone() });
        }
        (body, answered)
    }
}

/// Everything here may be kept for ten minutes, as far as the service is concerned.
async fn fixture() -> Fixture {
    let plain = with_positions(|b| b);
    let layer = RywLayer::builder()
        .cookie(tower_ryw::CookiePolicy::InsecureForDevelopment)
        .positions(plain.store.topology().clone())
        .ladder(tower_ryw::Ladder::new().wait(std::time::Duration::ZERO))
        .build()
        .unwrap();
    let cached = axum::middleware::map_response(|mut response: axum::response::Response| async move {
        let public = http::HeaderValue::from_static("public, max-age=600");
        response.headers_mut().insert(header::CACHE_CONTROL, public);
        response
    });
    let touched = get(|ryw: RywContext| async move { ryw.mark_written() });
    let app: Router = values(plain.store.clone()).route("/touched", touched).route("/w", put(async || {}));
    Fixture { app: app.layer(cached).layer(layer), store: plain.store }.settled().await
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_anothers_token_session_or_cookie() {
    let (fixture, mut cache) = (fixture().await, Cache::default());
    for path in ["/touched", "/v/a"] {
        for mine in [&[][..], &[session("a")], &[session("a"), ("x-consistency-level", "SESSION")]] {
            let (_, first) = cache.get(&fixture, path, mine).await;
            for theirs in [&[][..], &[session("b")], &[("cookie", "ryw=x")], &[("ryw-token", "x")]] {
                let (_, got) = cache.get(&fixture, path, theirs).await;
                for name in ["ryw-token", "x-session-id", "set-cookie"] {
                    let [mine, got] = [&first, &got].map(|headers| headers.get(name));
                    assert!(got.is_none() || got != mine, "{name} of {path}: {got:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_pinned_for_one_is_not_kept_and_who_has_written_gets_nothing_old() {
    let (fixture, mut cache) = (fixture().await, Cache::default());
    assert_eq!(cache.get(&fixture, "/v/a", &[session("reader")]).await.0, "nothing");
    let written = fixture.put("/v/a", &[session("writer")], "1").await;
    let token = written.header("ryw-token").unwrap().to_owned();
    let cookie = fixture.put("/w", &[], "").await.cookie().unwrap();
    for carried in [session("writer"), ("ryw-token", token.as_str()), ("cookie", cookie.as_str())] {
        let (body, answered) = cache.get(&fixture, "/v/a", &[carried]).await;
        assert_eq!(body, "1", "{carried:?}");
        assert!(list(&answered, header::CACHE_CONTROL).contains(&"private".to_owned()), "{answered:?}");
    }
    assert_eq!(cache.hits, 0);
    // Somebody else who is served by a replica is served what replicas have.
    assert_eq!(cache.get(&fixture, "/v/a", &[session("reader")]).await.0, "nothing");
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_what_it_depends_on() {
    let fixture = fixture().await;
    let vary = |answer: &Answer| list(&answer.headers, header::VARY);
    let named = vary(&fixture.get("/v/a", &[session("me")]).await);
    assert_eq!(named, ["ryw-token", "x-session-id", "x-consistency-level", "cookie"]);
    // Browsers without a session send cookies as well, and their pages may be kept.
    let anonymous = fixture.get("/v/a", &[("cookie", "theme=dark")]).await;
    assert_eq!(vary(&anonymous), ["ryw-token", "x-session-id", "x-consistency-level"]);
    assert_eq!(anonymous.header("cache-control"), Some("public, max-age=600"));
}

#[tokio::test(start_paused = true)]
async fn what_anybody_may_see_is_still_kept_for_everybody() {
    let (fixture, mut cache) = (fixture().await, Cache::default());
    fixture.store.put("t", "a", Some("1".into())).unwrap();
    tokio::time::sleep(LAG * 2).await;
    for n in 0..5 {
        let cookie = format!("theme={n}");
        assert_eq!(cache.get(&fixture, "/v/a", &[("cookie", &cookie)]).await.0, "1");
    }
    assert_eq!(cache.hits, 4);
}
