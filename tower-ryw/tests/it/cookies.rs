//! A browser that has nothing but its cookies, and whose answers arrive in any order.

use std::collections::BTreeMap;

use tower_ryw::{Key, RequestHead, RywLayer};

use crate::harness::{Answer, Fixture, LAG, values, with_positions};

/// What a browser keeps of answers, and sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar(pub(crate) BTreeMap<String, String>);

impl Jar {
    pub(crate) fn take(&mut self, answer: &Answer) {
        for cookie in answer.headers.get_all("set-cookie") {
            let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match attributes.contains("Max-Age=0") {
                true => self.0.remove(name),
                false => self.0.insert(name.to_owned(), value.to_owned()),
            };
        }
    }

    pub(crate) fn header(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    async fn put(&self, fixture: &Fixture, path: &str, body: &str) -> Answer {
        fixture.put(path, &[("cookie", &self.header())], body).await
    }

    async fn get(&self, fixture: &Fixture, path: &str) -> Answer {
        fixture.get(path, &[("cookie", &self.header())]).await
    }
}

fn key() -> Key {
    Key::new(1, &[7; 32]).unwrap()
}

async fn fixture() -> Fixture {
    with_positions(|b| b.signing_key(key())).settled().await
}

/// Another instance over the same database, which has no marks but those that it is told.
async fn elsewhere(fixture: &Fixture) -> Fixture {
    let layer = RywLayer::builder()
        .cookie(tower_ryw::CookiePolicy::InsecureForDevelopment)
        .positions(fixture.store.topology().clone())
        .ladder(tower_ryw::Ladder::new().wait(std::time::Duration::ZERO))
        .signing_key(key())
        .build()
        .unwrap();
    let app = values(fixture.store.clone()).layer(layer);
    Fixture { store: fixture.store.clone(), app }.settled().await
}

#[tokio::test(start_paused = true)]
async fn first_writes_at_once_are_all_seen_in_whatever_order_their_answers_come() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (fixture, nobody) = (fixture().await, Jar::default());
        let elsewhere = elsewhere(&fixture).await;
        // Replicas have the first two when the last one is made: the marks of those send nobody to the primary.
        let mut answers = vec![nobody.put(&fixture, "/v/0", "1").await, nobody.put(&fixture, "/v/1", "1").await];
        tokio::time::sleep(LAG * 2).await;
        answers.push(nobody.put(&fixture, "/v/2", "1").await);
        let mut jar = Jar::default();
        order.into_iter().for_each(|n| jar.take(&answers[n]));
        for instance in [&fixture, &elsewhere] {
            assert_eq!(nobody.get(instance, "/v/2").await.body, "nothing", "the replica does lag");
            for n in 0..3 {
                assert_eq!(jar.get(instance, &format!("/v/{n}")).await.body, "1", "{n} of {order:?}");
            }
        }
    }
}

/// What would happen with the session's cookie alone.
#[tokio::test(start_paused = true)]
async fn one_cookie_would_not_do() {
    let (fixture, nobody) = (fixture().await, Jar::default());
    let early = nobody.put(&fixture, "/v/early", "1").await;
    tokio::time::sleep(LAG * 2).await;
    let late = nobody.put(&fixture, "/v/late", "1").await;
    let mut jar = Jar::default();
    jar.take(&late);
    jar.take(&early);
    assert_eq!(jar.get(&fixture, "/v/late").await.body, "1");
    jar.0.retain(|name, _| name == "ryw");
    assert_eq!(jar.get(&fixture, "/v/late").await.body, "nothing");
}

/// A request that knew only one of the sessions is answered after another that knew both.
#[tokio::test(start_paused = true)]
async fn a_late_answer_to_one_session_takes_nothing_from_the_other() {
    let (fixture, nobody) = (fixture().await, Jar::default());
    let [first, second] = [nobody.put(&fixture, "/v/a", "1").await, nobody.put(&fixture, "/v/b", "1").await];
    let mut jar = Jar::default();
    jar.take(&first);
    let only_first = jar.clone();
    jar.take(&second);
    let (slow, quick) = (only_first.put(&fixture, "/v/c", "1").await, jar.put(&fixture, "/v/d", "1").await);
    jar.take(&quick);
    jar.take(&slow);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(jar.get(&fixture, &format!("/v/{key}")).await.body, "1", "{key}");
    }
    // From here on whatever it writes is both sessions'.
    tokio::time::sleep(LAG * 2).await;
    jar.put(&fixture, "/v/e", "1").await;
    for answer in [&first, &second] {
        let mut old = Jar::default();
        old.take(answer);
        assert_eq!(old.get(&fixture, "/v/e").await.body, "1");
    }
}

#[tokio::test(start_paused = true)]
async fn the_secure_cookies_of_a_birth_are_of_this_host_alone() {
    let fixture = with_positions(|b| b.cookie(tower_ryw::CookiePolicy::Secure)).settled().await;
    let written = fixture.put("/v/a", &[], "1").await;
    let cookies: Vec<_> = written.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    let names: Vec<_> = cookies.iter().map(|cookie| cookie.split('=').next().unwrap()).collect();
    assert!(names[0] == "__Host-ryw" && names[1].starts_with("__Host-ryw-") && names[1].len() == 19, "{names:?}");
    for cookie in cookies {
        for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=86400"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
    // The session that goes on needs no more than one.
    let mut jar = Jar::default();
    jar.take(&written);
    let next = jar.put(&fixture, "/v/a", "2").await;
    assert_eq!(next.headers.get_all("set-cookie").iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_can_not_be_believed_is_taken_away() {
    let fixture = fixture().await;
    let mut jar = Jar::default();
    jar.take(&fixture.put("/v/a", &[], "1").await);
    tokio::time::sleep(LAG * 2).await;
    let own = jar.0.len();
    // The slot of a session that another key has signed, and what only looks like one.
    for (name, value) in [("ryw-0123abcd", "AQFKdkRZ"), ("ryw-0123ABCD", "theirs"), ("ryw-1", "theirs"), ("rywx", "x")]
    {
        jar.0.insert(name.into(), value.into());
    }
    let read = jar.get(&fixture, "/v/a").await;
    assert_eq!(read.body, "1");
    jar.take(&read);
    assert!(!jar.0.contains_key("ryw-0123abcd"), "{jar:?}");
    assert_eq!(jar.0.len(), own + 3, "what is not ours stays");
    let read = jar.get(&fixture, "/v/a").await;
    assert!(read.route().starts_with("replica"), "and the session is known again: {}", read.route());
}

#[tokio::test(start_paused = true)]
async fn more_than_are_looked_at_become_one_and_lose_nothing() {
    let (fixture, nobody) = (fixture().await, Jar::default());
    let mut jar = Jar::default();
    for n in 0..30 {
        jar.take(&nobody.put(&fixture, &format!("/v/{n}"), "1").await);
    }
    assert_eq!(jar.0.len(), 31);
    let before = jar.clone();
    for n in 0..30 {
        assert_eq!(jar.get(&fixture, &format!("/v/{n}")).await.body, "1", "{n}");
    }
    let read = jar.get(&fixture, "/v/0").await;
    // One that was sent with as many, and wrote: its answer comes first, and its cookies are taken away.
    let written = before.put(&fixture, "/v/late", "1").await;
    jar.take(&written);
    jar.take(&read);
    assert_eq!(jar.0.len(), 1, "{jar:?}");
    for key in ["0", "29", "late"] {
        assert_eq!(jar.get(&fixture, &format!("/v/{key}")).await.body, "1", "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_flood_of_them_an_answer_takes_away_what_it_has_room_for() {
    let (fixture, nobody) = (fixture().await, Jar::default());
    let mut jar = Jar::default();
    for n in 0..200 {
        jar.take(&nobody.put(&fixture, &format!("/v/{n}"), "1").await);
    }
    while jar.0.len() > 17 {
        let (before, answer) = (jar.0.len(), jar.get(&fixture, "/v/7").await);
        assert_eq!(answer.body, "1");
        let bytes: usize = answer.headers.get_all("set-cookie").iter().map(|value| value.len()).sum();
        assert!(bytes < 4096, "{bytes}");
        jar.take(&answer);
        assert!(jar.0.len() < before, "{before}");
    }
}

/// Nobody knows what became of the first write of all. Its session's cookie and that of its birth are the same then.
#[tokio::test(start_paused = true)]
async fn what_a_birth_does_not_know_is_found_out_once() {
    let plain = with_positions(|b| b.signing_key(key())).settled().await;
    let layer = RywLayer::builder()
        .cookie(tower_ryw::CookiePolicy::InsecureForDevelopment)
        .positions(plain.store.topology().clone())
        .ladder(tower_ryw::Ladder::new().wait(std::time::Duration::ZERO))
        .signing_key(key())
        .build()
        .unwrap();
    let fails = axum::routing::put(|| async { http::StatusCode::INTERNAL_SERVER_ERROR });
    let app = values(plain.store.clone()).route("/fails", fails).layer(layer);
    let (fixture, mut jar) = (Fixture { app, store: plain.store.clone() }.settled().await, Jar::default());
    let failed = jar.put(&fixture, "/fails", "1").await;
    jar.take(&failed);
    assert!(failed.status == 500 && jar.0.len() == 2, "{jar:?}");
    // Elsewhere there is nothing but what the browser brings.
    let elsewhere = elsewhere(&fixture).await;
    tokio::time::sleep(LAG * 4).await;
    elsewhere.put("/v/b", &[], "1").await;
    let read = jar.get(&elsewhere, "/v/a").await;
    assert!(read.route().starts_with("primary;reason=unknown-marks"), "it is found out: {}", read.route());
    jar.take(&read);
    tokio::time::sleep(LAG * 2).await;
    elsewhere.put("/v/b", &[], "2").await;
    let read = jar.get(&elsewhere, "/v/a").await;
    assert!(read.route().starts_with("replica"), "and not again: {}", read.route());
    assert_eq!(read.cookie(), None);
}

/// The tenant is the query.
async fn tenants() -> Fixture {
    let tenant = |head: RequestHead<'_>| head.uri.query()?.parse().ok();
    with_positions(|b| b.signing_key(key()).tenant(tenant)).settled().await
}

/// Instances without marks of their own: nothing but its cookies makes them show what it has written.
#[tokio::test(start_paused = true)]
async fn a_browser_that_goes_from_one_tenant_to_another_and_back_loses_nothing() {
    let fixture = tenants().await;
    let mut jar = Jar::default();
    jar.take(&jar.put(&fixture, "/v/a?acme", "1").await);
    let acme = jar.clone();
    jar.take(&jar.put(&fixture, "/v/b?other", "2").await);
    jar.take(&jar.put(&fixture, "/v/c", "3").await);
    assert_eq!(jar.0.len(), 6, "{jar:?}");
    for path in ["/v/a?acme", "/v/b?other", "/v/c"] {
        jar.take(&jar.get(&fixture, path).await);
    }
    for (path, written) in [("/v/a?acme", "1"), ("/v/b?other", "2"), ("/v/c", "3")] {
        let read = jar.get(&fixture, path).await;
        assert_eq!(read.body, written, "{path}");
        assert_eq!(read.cookie(), None, "there is nothing to replace");
    }
    // A handler may have written to a third tenant from one of these.
    let read = jar.get(&fixture, "/v/a?third").await;
    assert!(read.body == "1" && read.route().contains("unknown-marks"), "{read:?}");
    // Whoever puts one tenant's cookie under another's name has made no session of it.
    let token = acme.0.values().next().unwrap();
    for name in jar.0.keys().filter(|name| !acme.0.contains_key(*name)) {
        let mut swapped = Jar::default();
        swapped.0.insert(name.clone(), token.clone());
        for path in ["/v/b?other", "/v/c", "/v/a?third"] {
            let read = swapped.get(&fixture, path).await;
            assert!(read.status == 200 && !read.route().contains("caught-up"), "{name} {path}: {read:?}");
            let honest = read.route().starts_with("primary") || read.header("x-consistency-enforced") == Some("false");
            assert!(honest, "{name} {path}: {read:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_tenants_those_whom_nobody_comes_back_to_are_forgotten() {
    let fixture = tenants().await;
    let (mut jar, mut names) = (Jar::default(), Vec::new());
    for n in 0..40 {
        let before = jar.0.clone();
        jar.take(&jar.put(&fixture, &format!("/v/a?t{n}"), "1").await);
        names.push(jar.0.keys().filter(|name| !before.contains_key(*name)).cloned().collect::<Vec<_>>());
        tokio::time::sleep(LAG).await;
        let length = jar.header().len();
        assert!(jar.0.len() <= 20 && length < 4096, "{n}: {} cookies, {length} bytes", jar.0.len());
    }
    let has = |n: usize| names[n].len() == 2 && names[n].iter().all(|name| jar.0.contains_key(name));
    assert!((33..40).all(has) && !(0..30).any(has), "{jar:?}");
}
