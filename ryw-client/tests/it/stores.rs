//! A session outlives its process, and travels in jobs.

use std::sync::Arc;

use parking_lot::Mutex;
use ryw_client::{Envelope, EnvelopeErrorKind, RywClientLayer, SavedSession, Session};

use crate::fake::{Server, answer, get, post, token, token_of};

const A: &str = "http://a.example/";

fn writes(offset: u64) -> Server {
    Server::new(move |_, _| {
        let lost = ("ryw-lost", "?1;epoch=2;was=1");
        let name = ("x-session-id", "s1");
        answer(200, &[name, lost, ("x-consistency-enforced", "true"), ("ryw-token", &token(offset))])
    })
}

async fn carried(session: &Session, uri: &str) -> Vec<String> {
    let server = Server::new(|_, _| answer(200, &[]));
    server.ask(&RywClientLayer::new(session.clone()), get(uri)).await;
    server.seen()[0].all("ryw-token").into_iter().map(String::from).collect()
}

#[tokio::test]
async fn what_was_saved_goes_on_where_it_ended() {
    let kept: Arc<Mutex<Option<String>>> = Arc::default();
    let keep = {
        let kept = Arc::clone(&kept);
        move |saved: &SavedSession| *kept.lock() = Some(saved.to_string())
    };
    let session = Session::builder().consumer(keep).build().unwrap();
    writes(7).ask(&RywClientLayer::new(session), post(A, "x")).await;

    let saved: SavedSession = kept.lock().clone().unwrap().parse().unwrap();
    let session = Session::builder().restore(&saved).build().unwrap();
    assert_eq!(session.id().unwrap().as_str(), "s1");
    assert!(session.lost().is_some(), "nobody has acknowledged it");
    assert!(carried(&session, "http://evil.example/").await.is_empty(), "it still belongs to its host");
    assert_eq!(carried(&session, A).await, [token(7)]);
    assert_eq!(session.save().to_string(), saved.to_string());
}

#[tokio::test]
async fn a_supplier_adds_what_others_have_saved() {
    let other = Session::builder().send_to("a.example").build().unwrap();
    let supplier = {
        let other = other.clone();
        move || Some(other.save())
    };
    let session = Session::builder().send_to("a.example").supplier(supplier).build().unwrap();
    assert!(carried(&session, A).await.is_empty());
    writes(7).ask(&RywClientLayer::new(other), post(A, "x")).await;
    assert_eq!(carried(&session, A).await, [token(7)]);
}

#[tokio::test]
async fn a_consumer_may_use_the_session_and_never_sees_an_older_state_last() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let own: Arc<Mutex<Option<Session>>> = Arc::default();
    let consumer = {
        let (seen, own) = (Arc::clone(&seen), Arc::clone(&own));
        move |saved: &SavedSession| {
            let session = own.lock().clone().unwrap();
            // A change from inside of the consumer: told after it has returned.
            session.acknowledge_lost();
            seen.lock().push(saved.to_string());
        }
    };
    let session = Session::builder().consumer(consumer).build().unwrap();
    *own.lock() = Some(session.clone());
    writes(7).ask(&RywClientLayer::new(session.clone()), post(A, "x")).await;
    let seen = seen.lock();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen.last(), Some(&session.save().to_string()));
}

#[tokio::test]
async fn a_job_sees_what_its_sender_saw() {
    let session = Session::new();
    writes(7).ask(&RywClientLayer::new(session.clone()), post(A, "x")).await;
    let message = session.envelope().to_string();
    let worker = Session::resume(&message.parse().unwrap());
    assert_eq!(carried(&worker, A).await, [token(7)]);
    assert!(carried(&worker, "http://evil.example/").await.is_empty());
    assert_eq!(message.parse::<Envelope>().unwrap().headers()["ryw-token"], token(7));
}

#[tokio::test]
async fn of_two_jobs_that_are_one_both_are_seen() {
    let envelope = async |key, offset| {
        let session = Session::new();
        let server = Server::new(move |_, _| answer(200, &[("ryw-token", &token_of(key, key, offset))]));
        server.ask(&RywClientLayer::new(session.clone()), post(A, "x")).await;
        session.envelope()
    };
    let (early, late, other) = (envelope(1, 5).await, envelope(1, 9).await, envelope(2, 1).await);
    for order in [[&early, &late, &other], [&other, &late, &early], [&late, &early, &late]] {
        let mut joined = Envelope::default();
        order.into_iter().for_each(|envelope| joined.join(envelope));
        let tokens = carried(&Session::resume(&joined), A).await;
        assert!(tokens.contains(&token_of(1, 1, 9)) && !tokens.contains(&token_of(1, 1, 5)), "{tokens:?}");
        assert_eq!(tokens.contains(&token_of(2, 2, 1)), order.iter().any(|one| std::ptr::eq(*one, &other)));
    }
}

#[tokio::test]
async fn a_damaged_token_makes_the_job_unknown_and_a_damaged_envelope_is_an_error() {
    let message = format!("ryw1;s1;{}.broken!.~01abc", token(7));
    let session = Session::resume(&message.parse().unwrap());
    assert_eq!(carried(&session, A).await, [&token(7), "unknown"]);
    for (text, kind) in [
        ("", EnvelopeErrorKind::Malformed),
        ("{}", EnvelopeErrorKind::Malformed),
        ("ryw1;s1", EnvelopeErrorKind::Malformed),
        ("ryw1;two words;", EnvelopeErrorKind::Malformed),
        ("ryw1;;;", EnvelopeErrorKind::Malformed),
        ("ryw2;;", EnvelopeErrorKind::UnsupportedVersion),
        (&format!("ryw1;;{}", "A".repeat(9000)), EnvelopeErrorKind::TooLong),
    ] {
        let error = text.parse::<Envelope>().unwrap_err();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(!error.to_string().contains("two words"), "{error}");
    }
    for text in [
        "",
        "ryw1;;",
        "ryw1;;;;",
        "ryw1;;;;1-x;",
        "ryw1;;;;;2",
        "ryw2;;;;;",
        "ryw1;;;nowhere;;",
        "ryw1;;;http://A:80;;",
    ] {
        assert!(text.parse::<SavedSession>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_full_session_fits_an_envelope() {
    let session = Session::builder().id("x".repeat(128).parse().unwrap()).build().unwrap();
    let server = Server::new(|before, _| {
        let before = u8::try_from(before).unwrap();
        answer(200, &[("ryw-token", &token_of(1 + before, before, 1))])
    });
    for _ in 0..40 {
        // Each from a session of its own, so that nothing stands for anything else.
        let one = Session::new();
        server.ask(&RywClientLayer::new(one.clone()), post(A, "x")).await;
        session.join(&one.envelope());
    }
    let text = session.save().to_string();
    assert!(text.len() < ryw_client::MAX_ENVELOPE_LEN, "{}", text.len());
    let restored = Session::builder().restore(&text.parse().unwrap()).build().unwrap();
    assert_eq!(carried(&restored, A).await, carried(&session, A).await);
    assert_eq!(restored.save().to_string(), session.save().to_string());
}

#[cfg(feature = "serde")]
#[test]
fn serde_writes_the_text() {
    let message = format!("ryw1;s1;{}", token(7));
    let envelope: Envelope = message.parse().unwrap();
    let json = serde_json::to_string(&envelope).unwrap();
    assert_eq!(json, format!("\"{message}\""));
    assert_eq!(serde_json::from_str::<Envelope>(&json).unwrap().to_string(), message);
    let error = serde_json::from_str::<SavedSession>("\"ryw2;secret;\"").unwrap_err().to_string();
    assert!(error.contains("envelope") && !error.contains("secret"), "{error}");
}
