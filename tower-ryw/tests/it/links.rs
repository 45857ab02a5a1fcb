//! Links that are shared: whoever follows one sees what was seen when it was made, and becomes nobody else by it.

use std::time::Duration;

use axum::routing::get;
use ryw_core::{ClusterId, Key, Keyring, Marks, Position, SubjectKey, Tenant, Token};
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{CookiePolicy, Ladder, Level, RywContext, RywLayer, RywLayerBuilder};

use crate::harness::{Fixture, level, session, values};

/// Longer than any test, so that nothing but a token makes a read see what was written.
const LAG: Duration = Duration::from_secs(3600);

fn key() -> Key {
    Key::new(1, &[7; 32]).unwrap()
}

struct Shared {
    fixture: Fixture,
    layer: RywLayer,
}

async fn shared(configure: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> Shared {
    let store = LaggingStore::builder().replicas(1).lag(LAG).start();
    let builder = RywLayer::builder()
        .cookie(CookiePolicy::InsecureForDevelopment)
        .positions(store.topology().clone())
        .signing_key(key())
        .ladder(Ladder::new().wait(Duration::ZERO));
    let layer = configure(builder).build().unwrap();
    let share = |ryw: RywContext| async move { ryw.share_link("/v/a?print=1#top") };
    let app = values(store.clone()).route("/share", get(share)).layer(layer.clone());
    Shared { fixture: Fixture { store, app }.settled().await, layer }
}

impl Shared {
    /// What was written, and a link to it as a browser asks for it: without the fragment.
    async fn link(&self) -> String {
        self.fixture.put("/v/a", &[session("me")], "1").await;
        let link = self.fixture.get("/share", &[session("me")]).await.body;
        let (link, fragment) = link.split_once('#').unwrap();
        assert!(link.starts_with("/v/a?print=1&ryw=") && fragment == "top", "{link}");
        link.to_owned()
    }

    async fn read(&self, path: &str, headers: &[(&str, &str)]) -> String {
        self.fixture.get(path, headers).await.body
    }

    /// How many tokens were not believed.
    fn disbelieved(&self) -> u64 {
        self.layer.stats().snapshot().tokens_refused
    }
}

fn token(link: &str) -> &str {
    link.rsplit_once("ryw=").unwrap().1
}

fn seal(key: Key, tenant: &Tenant, position: Position) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Token::shared(u32::try_from(now).unwrap(), Marks::at(position)).seal(&Keyring::new(key), tenant)
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_it_sees_what_was_written() {
    let shared = shared(|b| b).await;
    let link = shared.link().await;
    assert_eq!(shared.read("/v/a?print=1", &[]).await, "nothing", "the replicas do lag");
    assert_eq!(shared.read(&link, &[]).await, "1");
    assert_eq!(shared.read(&link, &[session("guest")]).await, "1");
    assert_eq!(shared.read(&link, &[level("EVENTUAL")]).await, "1", "the route demands more");
    assert_eq!(shared.disbelieved(), 0);
}

/// Where nobody is promised anything, a link is.
#[tokio::test(start_paused = true)]
async fn it_is_followed_where_the_route_promises_nothing() {
    for asked in [&[][..], &[level("EVENTUAL")], &[level("BOUNDED;max=3600000")], &[session("guest")]] {
        let shared = shared(|b| b.level(Level::Eventual)).await;
        let link = shared.link().await;
        assert_eq!(shared.read("/v/a", asked).await, "nothing", "the replicas do lag");
        let read = shared.fixture.get(&link, asked).await;
        assert!(read.body == "1" && read.route().contains("level=ryw"), "{asked:?} {read:?}");
        // Whoever carries the same token besides is shown no less.
        for also in [("ryw-token", token(&link).to_owned()), ("baggage", format!("ryw={}", token(&link)))] {
            let headers = [asked, &[(also.0, also.1.as_str())]].concat();
            let read = shared.fixture.get(&link, &headers).await;
            assert!(read.body == "1" && read.route().contains("level=ryw"), "{headers:?} {read:?}");
            assert!(read.header("referrer-policy").is_some(), "{read:?}");
        }
        // Nobody but this service makes one that does.
        let (path, token) = link.split_at(link.len() - 1);
        let forged = format!("{path}{}", if token == "A" { "Q" } else { "A" });
        for link in [forged.as_str(), "/v/a?ryw=", "/v/a?ryw=unknown"] {
            let read = shared.fixture.get(link, asked).await;
            assert!(read.body == "nothing" && !read.route().starts_with("primary"), "{link} {read:?}");
        }
    }
    // Never more than clients may ask for.
    let shared = shared(|b| b.level(Level::Eventual).max_level(Level::Eventual)).await;
    let link = shared.link().await;
    assert_eq!(shared.read(&link, &[]).await, "nothing");
}

#[tokio::test(start_paused = true)]
async fn there_is_none_where_everybody_sees_everything() {
    let shared = shared(|b| b).await;
    assert_eq!(shared.read("/share", &[]).await, "/v/a?print=1#top");
}

#[tokio::test(start_paused = true)]
async fn it_names_no_session_wherever_it_is_put() {
    let shared = shared(|b| b).await;
    let link = shared.link().await;
    let answer = shared.fixture.get(&link, &[]).await;
    for name in ["x-session-id", "ryw-token", "set-cookie"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    // Two who have it and write are two.
    let (field, cookie) = (("ryw-token", token(&link)), format!("ryw={}", token(&link)));
    let mut sessions = Vec::new();
    for carried in [field, field, ("cookie", &*cookie)] {
        let one = shared.fixture.put("/v/b", &[carried], "2").await;
        let token = one.header("ryw-token").unwrap();
        sessions.push(Token::open(&Keyring::new(key()), &Tenant::default(), token).unwrap().session);
        let read = shared.fixture.get("/v/b", &[session(one.header("x-session-id").unwrap())]).await;
        assert_eq!(read.body, "2", "{carried:?}");
    }
    sessions.push(SubjectKey::NOBODY);
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 4, "{sessions:?}");
    // A session's own token in a URL says what it says, and whose it is is of no interest.
    let first = shared.fixture.put("/v/a", &[session("me")], "2").await;
    shared.fixture.put("/v/later", &[session("me")], "3").await;
    let own = first.header("ryw-token").unwrap();
    assert_eq!(shared.read(&format!("/v/a?ryw={own}"), &[]).await, "2");
    assert_eq!(shared.fixture.get(&format!("/v/a?ryw={own}"), &[]).await.header("set-cookie"), None);
}

/// The page's own requests follow without the parameter.
#[tokio::test(start_paused = true)]
async fn a_session_that_follows_it_goes_on_seeing_it() {
    let shared = shared(|b| b).await;
    let link = shared.link().await;
    let guest = shared.fixture.put("/v/guest", &[], "0").await.cookie().unwrap();
    let stranger = Token::open(&Keyring::new(key()), &Tenant::default(), guest.split_once('=').unwrap().1).unwrap();
    let followed = shared.fixture.get(&link, &[("cookie", &guest)]).await;
    let kept = followed.cookie().expect("what it says goes into the cookie");
    let kept = Token::open(&Keyring::new(key()), &Tenant::default(), kept.split_once('=').unwrap().1).unwrap();
    assert_eq!(kept.session, stranger.session, "it is the same session as before");
    let written = Token::open(&Keyring::new(key()), &Tenant::default(), token(&link)).unwrap();
    assert!(kept.marks.covers(&written.marks));
}

#[tokio::test(start_paused = true)]
async fn it_is_over_after_minutes_and_says_nothing_then() {
    let shared = shared(|b| b.link_max_age(Duration::from_secs(60))).await;
    let link = shared.link().await;
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(shared.read(&link, &[]).await, "1");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let over = shared.fixture.get(&link, &[]).await;
    let without = shared.fixture.get("/v/a?print=1", &[]).await;
    assert_eq!(over.body, "nothing");
    assert_eq!(over.headers, without.headers, "as if it were not there");
    assert_eq!(shared.read("/v/a", &[("ryw-token", token(&link))]).await, "nothing", "in a field as well");
    assert_eq!(shared.read(&link, &[level("CAUSAL")]).await, "1", "who asks for more is told nothing less");
    assert_eq!(shared.disbelieved(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_one_is_over_also_when_its_key_is_gone() {
    let shared = shared(|b| b).await;
    let retired = Keyring::new(Key::new(9, &[9; 32]).unwrap());
    let link = |issued_at| {
        format!("/v/a?ryw={}", Token::shared(issued_at, Marks::unknown()).seal(&retired, &Tenant::default()))
    };
    shared.link().await;
    assert_eq!(shared.read(&link(1_700_000_000), &[]).await, "nothing");
    assert_eq!(shared.disbelieved(), 0);
    assert_eq!(shared.read(&link(u32::MAX), &[]).await, "1", "a new one can't be believed");
    assert_eq!(shared.disbelieved(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_another_tenant_or_cluster_or_forged_it_is_answered_at_once() {
    let wait = Ladder::new().wait(Duration::from_secs(2));
    let shared = shared(|b| b.ladder(wait)).await;
    let link = shared.link().await;
    let position = shared.fixture.store.put("t", "b", Some("2".into())).unwrap();
    let elsewhere = Position::new(ClusterId::new(1), position.epoch(), 1);
    let ahead = Position::new(position.cluster(), position.epoch(), u64::MAX - 1);
    let started = tokio::time::Instant::now();
    for token in [
        seal(key(), &"other".parse().unwrap(), position),
        seal(key(), &Tenant::default(), elsewhere),
        seal(key(), &Tenant::default(), ahead),
        seal(Key::new(1, &[8; 32]).unwrap(), &Tenant::default(), position),
        token(&link)[1..].to_owned(),
        "x".repeat(600),
        String::new(),
    ] {
        let read = shared.fixture.get(&format!("/v/a?ryw={token}"), &[]).await;
        assert_eq!(read.status, 200, "{token}");
    }
    // Nobody waits for a replica, which is a second late. The primary's position is asked for, which may take until its next turn.
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn it_stays_out_of_caches_and_of_what_other_sites_are_told() {
    let shared = shared(|b| b).await;
    let link = shared.link().await;
    let answer = shared.fixture.get(&link, &[]).await;
    assert_eq!(answer.header("cache-control"), Some("private"));
    assert_eq!(answer.header("referrer-policy"), Some("strict-origin-when-cross-origin"));
    let plain = shared.fixture.get("/v/a", &[session("me")]).await;
    assert_eq!(plain.header("referrer-policy"), None);

    let layer = RywLayer::builder().positions(shared.fixture.store.topology().clone()).signing_key(key());
    let strict = get(|| async { ([("referrer-policy", "no-referrer")], "") });
    let app = axum::Router::new().route("/v/a", strict).layer(layer.build().unwrap());
    let strict = Fixture { app, store: shared.fixture.store.clone() };
    assert_eq!(strict.get(&link, &[]).await.header("referrer-policy"), Some("no-referrer"));
}
