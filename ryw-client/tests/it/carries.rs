//! What responses say, the next requests carry.

use http::header;
use ryw_client::{Level, Report, RywClientLayer, Session};

use crate::fake::{Server, answer, get, post, token, token_of};

const A: &str = "http://a.example/";

#[tokio::test]
async fn a_session_that_the_server_began_is_continued() {
    let server = Server::new(|_, _| {
        answer(200, &[("x-session-id", "s1"), ("x-consistency-enforced", "true"), ("ryw-token", &token(7))])
    });
    let session = Session::new();
    let layer = RywClientLayer::new(session.clone());
    let response = server.ask(&layer, post(A, "x")).await;
    assert_eq!(response.extensions().get::<Report>().map(|report| report.attempts), Some(1));
    server.ask(&layer, get(A)).await;

    let [first, second] = &server.seen()[..] else { panic!("two requests") };
    assert!(first.all("ryw-token").is_empty() && first.all("x-session-id").is_empty());
    assert_eq!(second.all("ryw-token"), [token(7)]);
    assert_eq!(second.all("x-session-id"), ["s1"]);
    assert_eq!(session.id().unwrap().as_str(), "s1");
}

#[tokio::test]
async fn errors_teach_as_well() {
    for status in [302, 400, 404, 409, 500, 503] {
        let server = Server::new(move |_, _| answer(status, &[("ryw-token", &token(7))]));
        let layer = RywClientLayer::new(Session::new());
        server.ask(&layer, post(A, "x")).await;
        server.ask(&layer, post(A, "x")).await;
        assert_eq!(server.seen()[1].all("ryw-token"), [token(7)], "{status}");
    }
}

#[tokio::test]
async fn of_concurrent_answers_none_replaces_the_other_in_any_order() {
    let server = Server::new(|_, seen| match seen.uri.path() {
        "/early" => answer(200, &[("ryw-token", &token(10))]),
        "/late" => answer(200, &[("ryw-token", &token(20))]),
        "/other" => answer(200, &[("ryw-token", &token_of(1, 2, 5))]),
        _ => answer(200, &[]),
    });
    for order in [["early", "late", "other"], ["late", "early", "other"], ["other", "late", "early"]] {
        let layer = RywClientLayer::new(Session::new());
        // All have left before the first is answered.
        let answers = order.map(|path| server.ask(&layer, get(&format!("{A}{path}"))));
        for answer in answers {
            answer.await;
        }
        server.ask(&layer, get(A)).await;
        let last = server.seen().pop().unwrap();
        let mut carried = last.all("ryw-token");
        carried.sort_unstable();
        let mut expected = [token(20), token_of(1, 2, 5)];
        expected.sort_unstable();
        assert_eq!(carried, expected, "{order:?}");
    }
}

#[tokio::test]
async fn hostile_answers_stay_bounded() {
    let server = Server::new(|before, _| {
        let mut response = answer(200, &[("x-session-id", "two words"), ("x-consistency-enforced", "true")]);
        let base = u8::try_from(before).unwrap() * 8;
        for n in 0..200u8 {
            let value = token_of(1 + n % 8, base.wrapping_add(n), n.into());
            response.headers_mut().append("ryw-token", value.parse().unwrap());
        }
        for nonsense in ["A".repeat(5000), "\u{1f}".repeat(0), "not a token".into()] {
            response.headers_mut().append("ryw-token", nonsense.parse().unwrap());
        }
        response
    });
    let session = Session::new();
    let layer = RywClientLayer::new(session.clone());
    for _ in 0..5 {
        server.ask(&layer, get(A)).await;
    }
    let last = server.seen().pop().unwrap();
    let tokens = last.all("ryw-token");
    assert_eq!(tokens.len(), 8, "as many as a server looks at");
    assert_eq!(tokens[7], "unknown", "what is missing makes servers find out");
    assert!(tokens.iter().all(|token| token.len() <= 512));
    assert_eq!(session.id(), None);
}

#[tokio::test]
async fn what_a_request_says_itself_stays() {
    let server = Server::new(|_, _| answer(200, &[]));
    let session = Session::builder().id("mine".parse().unwrap()).build().unwrap();
    let layer = RywClientLayer::new(session).level(Level::Session);
    server.ask(&layer, get(A)).await;
    let mut request = get(A);
    request.headers_mut().insert("x-session-id", "theirs".parse().unwrap());
    request.headers_mut().insert("x-consistency-level", "STRONG".parse().unwrap());
    request.headers_mut().insert(header::ACCEPT, "text/plain".parse().unwrap());
    server.ask(&layer, request).await;
    let [plain, own] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!((plain.all("x-session-id"), plain.all("x-consistency-level")), (vec!["mine"], vec!["SESSION"]));
    assert_eq!((own.all("x-session-id"), own.all("x-consistency-level")), (vec!["theirs"], vec!["STRONG"]));
}

#[tokio::test]
async fn a_loss_is_told_to_the_caller_and_acknowledged_once() {
    let server = Server::new(|before, _| match before {
        0 => answer(200, &[("ryw-token", &token(9)), ("x-consistency-enforced", "true")]),
        1 => answer(409, &[("ryw-lost", "?1;epoch=2;was=1"), ("x-consistency-enforced", "false")]),
        // The server's position now, smaller than what was lost.
        2 => answer(200, &[("ryw-token", &token(3)), ("x-consistency-enforced", "true")]),
        _ => answer(200, &[]),
    });
    let session = Session::new();
    let layer = RywClientLayer::new(session.clone());
    server.ask(&layer, post(A, "x")).await;
    server.ask(&layer, post(A, "x")).await;
    assert_eq!(session.lost().map(|lost| lost.epoch.get()), Some(2));
    assert!(session.acknowledge_lost());
    assert!(session.lost().is_none() && !session.acknowledge_lost());
    server.ask(&layer, get(A)).await;
    server.ask(&layer, get(A)).await;
    let said: Vec<_> = server.seen().iter().map(|seen| seen.all("ryw-lost").join("")).collect();
    assert_eq!(said, ["", "", "ack;epoch=2", ""]);
    assert_eq!(server.seen()[3].all("ryw-token"), [token(3)], "what was lost is not asked for any more");
}

#[tokio::test]
async fn debug_output_shows_no_token() {
    let server = Server::new(|_, _| answer(200, &[("ryw-token", &token(7))]));
    let session = Session::new();
    let layer = RywClientLayer::new(session.clone());
    server.ask(&layer, get(A)).await;
    let token = token(7);
    for shown in [
        format!("{session:?}"),
        format!("{layer:?}"),
        format!("{:?}", session.save()),
        format!("{:?}", session.envelope()),
        format!("{:?}", Session::builder().restore(&session.save())),
    ] {
        assert!(!shown.contains(&token), "{shown}");
    }
    server.ask(&layer, get(A)).await;
    assert!(!format!("{:?}", server.seen()[1].headers).contains(&token), "marked as sensitive");
}
