//! A token is a hint about freshness: it can make a read fresher or slower, nothing else.

use tower_ryw::{Epoch, Key, Keyring, Level, Marks, Position, RywContext, Tenant};

use crate::{
    cluster::{Client, Cluster, at},
    harness::{LAG, level, session, with_positions},
};

fn key() -> Key {
    Key::new(1, &[7; 32]).unwrap()
}

fn token(marks: Marks) -> String {
    let tenant = Tenant::default();
    let session = key().session(&tenant, &"me".parse().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    ryw_core::Token { session, issued_at: u32::try_from(now).unwrap(), marks }.seal(&Keyring::new(key()), &tenant)
}

#[tokio::test(start_paused = true)]
async fn positions_ahead_of_the_primary_are_not_waited_for() {
    let ladder = tower_ryw::Ladder::new().wait(std::time::Duration::from_secs(2));
    let fixture = with_positions(|b| b.signing_key(key()).ladder(ladder)).settled().await;
    let position = fixture.store.put("t", "a", Some("1".into())).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let started = tokio::time::Instant::now();
    let ahead = Position::new(position.cluster(), position.epoch(), u64::MAX - 1);
    let read = fixture.get("/v/a", &[("ryw-token", &token(Marks::at(ahead)))]).await;
    assert!(read.route().starts_with("primary;reason=behind"), "{}", read.route());
    assert!(started.elapsed() < std::time::Duration::from_millis(10));
    // Another instance has heard of a failover that this one has not: the primary that it knows may be none.
    let newer = Position::new(position.cluster(), Epoch::new(9), 1);
    let read = fixture.get("/v/a", &[("ryw-token", &token(Marks::at(newer)))]).await;
    assert_eq!((read.status.as_u16(), read.header("retry-after")), (503, Some("1")), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn an_old_token_does_not_lower_what_the_store_knows() {
    let fixture = with_positions(|b| b.signing_key(key())).settled().await;
    let old = fixture.put("/v/a", &[session("me")], "1").await.header("ryw-token").unwrap().to_owned();
    fixture.put("/v/a", &[session("me")], "2").await;
    let read = fixture.get("/v/a", &[session("me"), ("ryw-token", &old)]).await;
    assert_eq!(read.body, "2");
}

#[tokio::test(start_paused = true)]
async fn several_tokens_are_joined() {
    let fixture = with_positions(|b| b.signing_key(key())).settled().await;
    let mine = fixture.put("/v/a", &[session("me")], "1").await.header("ryw-token").unwrap().to_owned();
    let theirs = fixture.put("/v/b", &[session("they")], "2").await.header("ryw-token").unwrap().to_owned();
    for tokens in [[("ryw-token", &*mine), ("ryw-token", &*theirs)], [("ryw-token", &*theirs), ("ryw-token", &*mine)]] {
        assert_eq!(fixture.get("/v/a", &tokens).await.body, "1");
        assert_eq!(fixture.get("/v/b", &tokens).await.body, "2");
    }
}

/// As `Headers.append` of a browser sends them, and proxies that fold repeated fields into one.
#[tokio::test(start_paused = true)]
async fn tokens_may_stand_in_one_field_separated_by_commas() {
    let fixture = with_positions(|b| b.signing_key(key())).settled().await;
    let mine = fixture.put("/v/a", &[session("me")], "1").await.header("ryw-token").unwrap().to_owned();
    let theirs = fixture.put("/v/b", &[session("they")], "2").await.header("ryw-token").unwrap().to_owned();
    for tokens in [format!("{mine}, {theirs}"), format!("{theirs},{mine}")] {
        assert_eq!(fixture.get("/v/a", &[("ryw-token", &tokens)]).await.body, "1");
        assert_eq!(fixture.get("/v/b", &[("ryw-token", &tokens)]).await.body, "2");
    }
    tokio::time::sleep(2 * LAG).await;
    fixture.put("/v/c", &[session("somebody")], "3").await;
    let read = fixture.get("/v/b", &[("ryw-token", &format!("{mine}, {theirs}"))]).await;
    assert!(read.route().contains("reason=caught-up"), "both are understood: {}", read.route());
    let read = fixture.get("/v/b", &[("ryw-token", &format!("{mine}, {theirs}, damaged"))]).await;
    assert!(read.route().starts_with("primary;reason=unknown-marks"), "one is not: {}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_client_can_ask_for_more_and_never_for_less() {
    let fixture = with_positions(|b| b.level(Level::ReadYourWrites).max_level(Level::Session)).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    for (asked, expected) in [("EVENTUAL", "level=ryw"), ("STRONG", "level=session"), ("SESSION", "level=session")] {
        let read = fixture.get("/v/a", &[session("me"), ("x-consistency-level", asked)]).await;
        assert_eq!(read.body, "1");
        assert!(read.route().contains(expected), "{asked}: {}", read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_gives_its_client_a_token_whatever_the_store_knew_already() {
    let cluster = Cluster::start().await;
    let user = |_: tower_ryw::RequestHead<'_>| vec![ryw_core::Subject::user("u17").unwrap()];
    let layer = cluster.layer().subjects(user).build().unwrap();
    let tells = |context: RywContext| async move { context.mark_written_at(at(1, 90)) };
    let client = Client::with(&layer, axum::routing::post(tells));
    // One device has written at 100, and the other one's write has an earlier place.
    let first = client.post(&[session("desktop")]).await;
    let second = client.send("POST", "/it", &[session("phone")]).await;
    assert!(first.header("ryw-token").is_some() && second.header("ryw-token").is_some());
    let token = second.header("ryw-token").unwrap();
    let again = client.send("POST", "/it", &[session("phone"), ("ryw-token", token)]).await;
    assert!(again.header("ryw-token").is_none(), "it has that already");
}

/// What a store has sampled for somebody, or knew already, no other instance need know: whoever has seen it is told.
#[tokio::test(start_paused = true)]
async fn what_a_read_has_shown_is_told_although_the_store_required_it_already() {
    let fixture = with_positions(|builder| builder);
    fixture.store.put("t", "a", Some("v".into())).unwrap();
    for read in ["the first is required to see a sample", "the second what the first has seen"] {
        let answer = fixture.get("/v/a", &[session("reader"), level("SESSION")]).await;
        assert_eq!(answer.body, "v", "{read}");
        assert!(answer.header("ryw-token").is_some(), "{read}: {}", answer.route());
    }
}
