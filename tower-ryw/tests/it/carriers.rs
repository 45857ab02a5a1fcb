//! Every carrier of a token: with it nothing is stale, and without it the very same read is.
//!
//! | carrier | test, with and without |
//! |---|---|
//! | `Ryw-Token`, cookie, baggage, `Last-Event-ID`, shared link | [`who_carries_sees_and_who_drops_does_not`], at an instance that knows nothing else |
//! | cookies of a real browser | `clients/typescript/test/browser/cookies.test.js`, "what it has written it sees, by its cookie alone" |
//! | shared link, followed and resumed from | `links::whoever_follows_it_sees_what_was_written`; `ryw-client`, `handed_on::whoever_is_given_a_link_goes_on_with_what_it_says` |
//! | gRPC metadata | `ryw-client`, `grpc::a_carried_session_reads_its_writes_and_a_dropped_one_does_not` |
//! | gRPC trailers | `ryw-tests`, `grpc_stream::a_streamed_writes_token_comes_in_the_trailers` and `without_the_layer_there_is_none` |
//! | W3C baggage through a service that knows nothing of it | `ryw-client`, `handed_on::baggage_goes_through_a_service_that_knows_nothing_of_it` |
//! | from service to service | `ryw-client`, `causal::what_a_session_has_written_is_seen_by_the_called_service` and those beside it |
//! | `Envelope` | `ryw-client`, `end_to_end::a_job_in_another_process_sees_what_was_written`, `handed_on::a_job_sees_what_the_request_has_written_that_left_it` |
//! | id of a server-sent event | `web::an_event_source_that_connects_again_brings_what_it_saw` |
//! | WebSocket message | `web::each_message_of_a_web_socket_is_decided_anew`, `web::a_web_socket_learns_of_a_write_that_was_made_elsewhere` |
//! | `fetch`, TypeScript | `clients/typescript/test/browser/client.test.js`, "it is the token that does it, where the session's name is not known" |
//! | any Tower client | `ryw-client`, `end_to_end::a_carried_session_reads_its_writes_and_a_dropped_one_does_not` |
//! | reqwest | `ryw-client`, `reqwest::reads_its_writes_also_after_a_redirect` |

use std::time::Duration;

use ryw_testing::lagging::LaggingStore;
use tower_ryw::{CookiePolicy, Key, Ladder, RywLayer};

use crate::harness::{Fixture, values};

/// An instance with marks of its own, whose replicas lag for longer than the test takes.
async fn instance(store: &LaggingStore) -> Fixture {
    let layer = RywLayer::builder()
        .cookie(CookiePolicy::InsecureForDevelopment)
        .positions(store.topology().clone())
        .signing_key(Key::new(1, &[7; 32]).unwrap())
        .ladder(Ladder::new().wait(Duration::ZERO))
        .event_ids(true)
        .build()
        .unwrap();
    Fixture { app: values(store.clone()).layer(layer), store: store.clone() }.settled().await
}

#[tokio::test(start_paused = true)]
async fn who_carries_sees_and_who_drops_does_not() {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(3600)).start();
    let (one, other) = (instance(&store).await, instance(&store).await);
    let token = one.put("/v/a", &[], "1").await.header("ryw-token").unwrap().to_owned();
    let elsewhere = one.put("/v/b", &[], "2").await.header("ryw-token").unwrap().to_owned();
    let member = |token: &str| format!("trace=1,ryw={token};p=1");
    for (carrier, carrying, dropping) in [
        ("ryw-token", token.clone(), None),
        ("ryw-token", format!("{elsewhere}, {token}"), None),
        ("cookie", format!("theme=dark; ryw={token}"), Some("theme=dark".to_owned())),
        ("cookie", format!("ryw-0123abcd={token}"), Some("ryw-x=1".into())),
        ("baggage", member(&token), Some("trace=1".into())),
        ("baggage", member(&format!("{elsewhere}.{token}")), Some("rywx=1".into())),
        ("last-event-id", format!("41;{token}"), Some("41;".into())),
    ] {
        assert_eq!(other.get("/v/a", &[(carrier, &carrying)]).await.body, "1", "{carrier}");
        let dropped: Vec<_> = dropping.iter().map(|value| (carrier, value.as_str())).collect();
        assert_eq!(other.get("/v/a", &dropped).await.body, "nothing", "{carrier}");
    }
    assert_eq!(other.get(&format!("/v/a?ryw={token}"), &[]).await.body, "1");
    assert_eq!(other.get("/v/a?rywx=1", &[]).await.body, "nothing");
}

/// Names that proxies and frameworks take for others are not taken for ours: each is as if it were not there.
#[tokio::test(start_paused = true)]
async fn other_spellings_carry_nothing() {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(3600)).start();
    let (one, other) = (instance(&store).await, instance(&store).await);
    let written = one.put("/v/a", &[("x-session-id", "me")], "1").await;
    let token = written.header("ryw-token").unwrap().to_owned();
    let names = [
        ("ryw-token", &*token),
        ("x-session-id", "me"),
        ("x-consistency-level", "STRONG"),
        ("baggage", &*format!("ryw={token}")),
        ("last-event-id", &*format!("1;{token}")),
        ("cookie", &*format!("ryw={token}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut tried = 0;
    for (name, value) in names {
        for spelling in [
            name.replace('-', "_"),
            name.replacen('-', "_", 1),
            name.replace('-', ""),
            name.replace('-', "--"),
            name.replace('-', "."),
            format!("x-{name}"),
            format!("x-ryw-{name}"),
            format!("http-{name}"),
            format!("http_{}", name.replace('-', "_")),
            format!("{name}-"),
            format!("-{name}"),
            format!("{name}s"),
        ] {
            if spelling == name {
                continue;
            }
            let read = other.get("/v/a", &[(&*spelling, &*value)]).await;
            assert_eq!(read.body, "nothing", "{spelling}: {value}");
            assert_eq!(read.header("x-session-id"), None, "{spelling}");
            tried += 1;
        }
        if name != "x-session-id" {
            assert_eq!(other.get("/v/a", &[(&*name, &*value)]).await.body, "1", "{name} itself");
        }
    }
    assert!(tried >= 60, "{tried}");
    // In other cases it is the same field, as always in HTTP; in cookies and baggage it is another name.
    assert_eq!(other.get("/v/a", &[("RyW-ToKeN", &token)]).await.body, "1");
    for (field, value) in [("cookie", format!("RYW={token}")), ("baggage", format!("RYW={token}"))] {
        assert_eq!(other.get("/v/a", &[(field, &value)]).await.body, "nothing", "{field}");
    }
}

/// Whoever says that a field is for the next hop only wants a proxy to drop what it has added itself.
#[tokio::test(start_paused = true)]
async fn a_field_that_is_called_hop_by_hop_is_refused() {
    let store = LaggingStore::builder().replicas(1).start();
    let one = instance(&store).await;
    for (connection, status) in [
        ("keep-alive", 200),
        ("upgrade, keep-alive", 200),
        ("close, Ryw-Token", 400),
        ("ryw-token", 400),
        ("X-Session-ID", 400),
        ("keep-alive,x-consistency-level", 400),
        ("ryw-lost", 400),
    ] {
        let answer = one.get("/v/a", &[("connection", connection)]).await;
        assert_eq!(answer.status, status, "{connection}");
        assert!(status == 200 || answer.body.contains("Connection"), "{}", answer.body);
    }
    assert_eq!(one.get("/v/a", &[("connection", "close"), ("connection", "ryw-token")]).await.status, 400);
}
