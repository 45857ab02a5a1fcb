//! Tokens that can't be believed, on a primary that is written to all the time, so that no replica ever has what it has: they
//! cost nothing that a request without a token would not, and whoever has one for an honest reason is never misled.

use std::time::Duration;

use ryw_core::{ClusterId, Epoch, Key, Keyring, Marks, Position, Tenant, Token};
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{Ladder, RequestHead, RywLayer, RywLayerBuilder};

use crate::{
    cookies::Jar,
    harness::{Answer, Fixture, level, session, values},
};

fn keys() -> Keyring {
    Keyring::new(Key::new(1, &[7; 32]).unwrap())
}

fn elsewhere() -> Keyring {
    Keyring::new(Key::new(2, &[8; 32]).unwrap())
}

fn seconds() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u32::try_from(now.as_secs()).unwrap()
}

fn seal(keys: &Keyring, tenant: &str, marks: Marks) -> String {
    let tenant = if tenant.is_empty() { Tenant::default() } else { tenant.parse().unwrap() };
    let session = keys.newest().session(&tenant, &"me".parse().unwrap());
    Token { session, issued_at: seconds(), marks }.seal(keys, &tenant)
}

/// Two replicas that are 50 ms late, a write every 5 ms, and a layer that would wait for 10 ms. The tenant is the path's.
async fn busy(configure: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> Fixture {
    let store = LaggingStore::builder().replicas(2).lag(Duration::from_millis(50)).start();
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .signing_keys(keys())
        .tenant(|head: RequestHead<'_>| head.uri.query()?.strip_prefix("tenant=")?.parse().ok())
        .ladder(Ladder::new().wait(Duration::from_millis(10)));
    let fixture = Fixture { app: values(store.clone()).layer(configure(layer).build().unwrap()), store: store.clone() };
    tokio::spawn(async move {
        for n in 0_u64.. {
            store.put("t", "counter", Some(n.to_string().into())).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // Whoever comes first finds out for everybody what was written before this process was started.
    tokio::time::sleep(Duration::from_millis(200)).await;
    fixture.get("/v/x", &[session("first")]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    fixture
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    by_primary: usize,
    waited: usize,
    refused: usize,
    not_enforced: usize,
}

/// What 60 reads cost, 10 ms apart.
async fn cost(fixture: &Fixture, path: &str, mut headers: impl FnMut(usize) -> Vec<(&'static str, String)>) -> Cost {
    let mut cost = Cost::default();
    for n in 0..60 {
        let headers = headers(n);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let started = tokio::time::Instant::now();
        let read = fixture.get(path, &headers).await;
        cost.waited += usize::from(started.elapsed() > Duration::ZERO);
        cost.refused += usize::from(read.status != 200);
        cost.by_primary += usize::from(read.route().starts_with("primary"));
        cost.not_enforced += usize::from(read.header("x-consistency-enforced") == Some("false"));
        assert!(!read.route().contains("reason=behind"), "{}", read.route());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cost
}

/// Where the primary is.
fn newest(fixture: &Fixture) -> Position {
    fixture.store.topology().view().primary().unwrap().applied().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_signed_and_nobody_is_called_costs_nothing() {
    let fixture = busy(|layer| layer).await;
    let nothing = Cost::default();
    assert_eq!(cost(&fixture, "/v/x", |_| Vec::new()).await, nothing);
    assert_eq!(cost(&fixture, "/v/x", |n| vec![("x-session-id", format!("made-up-{n}"))]).await, nothing);

    // Signed with a key of one's own, or damaged: what it says is long everywhere.
    let old = newest(&fixture);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let forged = seal(&elsewhere(), "", Marks::at(old));
    assert_eq!(cost(&fixture, "/v/x", |_| vec![("ryw-token", forged.clone())]).await, nothing);
    let honest = seal(&keys(), "", Marks::at(old));
    let mutated = format!("{}{}", &honest[..honest.len() - 1], if honest.ends_with('A') { 'Q' } else { 'A' });
    assert_eq!(cost(&fixture, "/v/x", |_| vec![("ryw-token", mutated.clone())]).await, nothing);
}

#[tokio::test(start_paused = true)]
async fn another_tenants_token_costs_nothing_once_replicas_have_what_it_says() {
    let fixture = busy(|layer| layer).await;
    let old = seal(&keys(), "theirs", Marks::at(newest(&fixture)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cost(&fixture, "/v/x?tenant=mine", |_| vec![("ryw-token", old.clone())]).await, Cost::default());
    let theirs = || seal(&keys(), "theirs", Marks::at(newest(&fixture)));
    let cost = cost(&fixture, "/v/x?tenant=mine", |_| vec![("ryw-token", theirs())]).await;
    assert!(cost.by_primary <= 10 && cost.not_enforced + cost.by_primary == 60, "{cost:?}");
    assert_eq!((cost.waited, cost.refused), (0, 0), "{cost:?}");
}

#[tokio::test(start_paused = true)]
async fn another_clusters_positions_are_held_to_what_this_one_began_with() {
    let fixture = busy(|layer| layer).await;
    let moved = Position::new(ClusterId::new(4711), Epoch::new(3), u64::MAX - 1);
    for keys in [keys(), elsewhere()] {
        let token = seal(&keys, "", Marks::at(moved));
        assert_eq!(cost(&fixture, "/v/x", |_| vec![("ryw-token", token.clone())]).await, Cost::default());
    }
    // Beside a position of this cluster, that one counts.
    let mut both = Marks::at(moved);
    both.join(&Marks::at(newest(&fixture)));
    let read = fixture.get("/v/x", &[("ryw-token", &seal(&keys(), "", both))]).await;
    assert!(read.route().starts_with("primary"), "{}", read.route());
}

/// As much as the allowance, at once, and what does not fit is told.
#[tokio::test(start_paused = true)]
async fn what_says_nothing_or_too_much_has_an_allowance() {
    let mut odd = 0;
    let fixture = busy(|layer| layer).await;
    let made_up: [&dyn Fn() -> String; 5] = [
        &|| "unknown".into(),
        &|| "not-a-token".into(),
        &|| "A".repeat(2000),
        &|| seal(&elsewhere(), "", Marks::at(newest(&fixture))),
        &|| seal(&elsewhere(), "", Marks::at(Position::new(newest(&fixture).cluster(), Epoch::new(9), 1))),
    ];
    let started = tokio::time::Instant::now();
    let mut cost = Cost::default();
    for _ in 0..60 {
        for token in &made_up {
            let asked = tokio::time::Instant::now();
            let read = fixture.get("/v/x", &[("ryw-token", &token())]).await;
            assert_eq!(read.status, 200);
            let by_primary = read.route().starts_with("primary");
            let enforced = read.header("x-consistency-enforced") == Some("true");
            assert!(read.route().contains("reason=unknown-marks"), "{}", read.route());
            assert_eq!(by_primary, enforced, "{read:?}");
            assert!(read.header("ryw-token").is_none(), "nothing of it is signed: {read:?}");
            cost.by_primary += usize::from(by_primary);
            // The position of the primary is asked for, and nothing is waited for.
            cost.waited += usize::from(asked.elapsed() > Duration::from_millis(1));
            odd += 1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    assert!(cost.by_primary <= 5 + 5 * seconds && cost.by_primary > 0, "{cost:?} of {odd} in {seconds} s");
    assert_eq!((cost.waited, fixture.store.topology().waiting()), (0, 0), "{cost:?}");
}

#[tokio::test(start_paused = true)]
async fn none_at_all_where_none_are_allowed() {
    let fixture = busy(|layer| layer.unproven_reads(0)).await;
    let cost = cost(&fixture, "/v/x", |_| vec![("ryw-token", "unknown".into())]).await;
    assert_eq!(cost, Cost { not_enforced: 60, ..Cost::default() });
}

#[tokio::test(start_paused = true)]
async fn many_cookies_that_nobody_has_signed_are_no_more_than_one() {
    let fixture = busy(|layer| layer.unproven_reads(0)).await;
    let crowd: Vec<_> = (0..40).map(|n| format!("__Host-ryw-{n:08x}=x")).collect();
    let cost = cost(&fixture, "/v/x", |_| vec![("cookie", crowd.join("; "))]).await;
    assert_eq!(cost, Cost { not_enforced: 60, ..Cost::default() });
}

#[tokio::test(start_paused = true)]
async fn nobody_is_refused_for_it_where_the_primary_is_not_to_be_read() {
    let fixture = busy(|layer| layer.ladder(Ladder::new().primary(false))).await;
    let cost = cost(&fixture, "/v/x", |_| vec![("ryw-token", "unknown".into())]).await;
    assert_eq!(cost, Cost { not_enforced: 60, ..Cost::default() });
}

/// A read that is recorded, or begins a session, replaces nothing that says more.
#[tokio::test(start_paused = true)]
async fn a_read_without_what_a_cookie_says_leaves_that_cookie() {
    let fixture = busy(|layer| layer.unproven_reads(0)).await;
    let written = fixture.store.put("t", "mine", Some("1".into())).unwrap();
    for wanted in ["SESSION", "MONOTONIC", "RYW"] {
        let mut jar = Jar::default();
        jar.0.insert("__Host-ryw".into(), seal(&elsewhere(), "", Marks::at(written)));
        for n in 0..3 {
            let read = fixture.get("/v/mine", &[("cookie", &jar.header()), level(wanted)]).await;
            assert!(is_honest(&read, "1"), "{wanted} {n}: {read:?}");
            jar.take(&read);
        }
    }
}

/// Whether the read shows what was written, or says that it may not.
fn is_honest(read: &Answer, written: &str) -> bool {
    read.body == written || read.header("x-consistency-enforced") == Some("false")
}

/// A key that was taken out at once: sessions that have just written come with its tokens.
#[tokio::test(start_paused = true)]
async fn whose_key_was_taken_out_sees_what_they_wrote_or_is_told() {
    let fixture = busy(|layer| layer).await;
    let (mut seen, mut told) = (0, 0);
    for n in 0..200 {
        let written = fixture.store.put("t", "mine", Some(n.to_string().into())).unwrap();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        let token = seal(&elsewhere(), "", Marks::at(written));
        let read = fixture.get("/v/mine", &[("ryw-token", &token)]).await;
        assert!(is_honest(&read, &n.to_string()), "{n}: {read:?}");
        seen += usize::from(read.body == n.to_string());
        told += usize::from(read.header("x-consistency-enforced") == Some("false"));
    }
    assert!(seen > 20 && told > 20, "{seen} {told}");
    // With time there is room again, and replicas have it anyhow.
    let written = fixture.store.put("t", "mine", Some("last".into())).unwrap();
    let token = seal(&elsewhere(), "", Marks::at(written));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let read = fixture.get("/v/mine", &[("ryw-token", &token)]).await;
    assert!(read.body == "last" && read.route().starts_with("replica") && is_enforced(&read), "{read:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = fixture.store.put("t", "mine", Some("very last".into())).unwrap();
    tokio::time::sleep(Duration::from_millis(25)).await;
    let token = seal(&elsewhere(), "", Marks::at(written));
    let read = fixture.get("/v/mine", &[("ryw-token", &token)]).await;
    assert!(read.body == "very last" && read.route().starts_with("primary;reason=unknown-marks"), "{read:?}");
}

fn is_enforced(read: &Answer) -> bool {
    read.header("x-consistency-enforced") == Some("true")
}

/// A proxy that repeats a field is no crowd of tokens.
#[tokio::test(start_paused = true)]
async fn the_same_token_many_times_says_what_it_says() {
    let fixture = busy(|layer| layer.unproven_reads(0)).await;
    let written = newest(&fixture);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let own = seal(&keys(), "", Marks::at(written));
    let copies = vec![own.as_str(); 50].join(", ");
    assert_eq!(cost(&fixture, "/v/x", |_| vec![("ryw-token", copies.clone())]).await, Cost::default());
    let link = vec![format!("ryw={own}"); 50].join("&");
    assert_eq!(cost(&fixture, &format!("/v/x?{link}"), |_| Vec::new()).await, Cost::default());

    // Of those beyond the limit nobody knows what they say.
    let each = |n| seal(&keys(), "", Marks::at(Position::new(written.cluster(), written.epoch(), n)));
    let crowd = |n| (1..=n).map(each).collect::<Vec<_>>().join(",");
    assert_eq!(cost(&fixture, "/v/x", |_| vec![("ryw-token", crowd(8))]).await, Cost::default());
    let cost = cost(&fixture, "/v/x", |_| vec![("ryw-token", crowd(9))]).await;
    assert_eq!(cost, Cost { not_enforced: 60, ..Cost::default() });
}

/// The session's own marks go on to count.
#[tokio::test(start_paused = true)]
async fn it_takes_nothing_from_what_is_known() {
    let fixture = busy(|layer| layer.unproven_reads(0)).await;
    for n in 0..20 {
        fixture.put("/v/mine", &[session("me")], &n.to_string()).await;
        let read = fixture.get("/v/mine", &[session("me"), ("ryw-token", "unknown")]).await;
        assert_eq!(read.body, n.to_string(), "{read:?}");
    }
    let read = fixture.get("/v/mine", &[("ryw-token", "unknown"), level("EVENTUAL")]).await;
    assert!(read.route().starts_with("replica"), "{}", read.route());
}
