//! No host but the session's own is told of it, and none is believed.

use ryw_client::{Report, RywClientLayer, Session};

use crate::fake::{Server, answer, get, token, token_of};

#[tokio::test]
async fn without_rules_it_is_the_first_host_that_answers_with_a_token() {
    let session = Session::new();
    let layer = RywClientLayer::new(session.clone());
    let plain = Server::new(|_, _| answer(200, &[("x-session-id", "an-unrelated-name")]));
    plain.ask(&layer, get("https://cdn.example/")).await;
    let ours = Server::new(|_, _| answer(200, &[("ryw-token", &token(7))]));
    ours.ask(&layer, get("https://api.example/")).await;
    let foreign = Server::new(|_, _| answer(200, &[("ryw-token", &token_of(9, 9, 9))]));
    for uri in ["https://evil.example/", "http://api.example/", "https://api.example:8443/", "https://cdn.example/"] {
        let response = foreign.ask(&layer, get(uri)).await;
        assert!(!response.extensions().get::<Report>().unwrap().told, "{uri}");
    }
    ours.ask(&layer, get("https://API.example:443/x")).await;

    assert!(foreign.seen().iter().all(|seen| seen.all("ryw-token").is_empty()));
    assert_eq!(ours.seen()[1].all("ryw-token"), [token(7)], "and nothing of the foreign host's");
    assert_eq!(session.id(), None);
}

#[tokio::test]
async fn of_two_hosts_that_answer_at_once_one_is_believed() {
    let layer = RywClientLayer::new(Session::new());
    let server = Server::new(|_, seen| match seen.uri.host() {
        Some("a.example") => answer(200, &[("ryw-token", &token(7))]),
        _ => answer(200, &[("ryw-token", &token_of(9, 9, 9))]),
    });
    // Both have left before either has answered.
    let (a, b) = (server.ask(&layer, get("http://a.example/")), server.ask(&layer, get("http://b.example/")));
    a.await;
    b.await;
    server.ask(&layer, get("http://a.example/")).await;
    server.ask(&layer, get("http://b.example/")).await;
    assert_eq!(server.seen()[2].all("ryw-token"), [token(7)]);
    assert!(server.seen()[3].all("ryw-token").is_empty());
}

#[tokio::test]
async fn rules_say_which_hosts_share_it() {
    let session = Session::builder().send_to("*.svc.example").send_to("https://api.example").build().unwrap();
    let layer = RywClientLayer::new(session);
    let server = Server::new(|before, _| answer(200, &[("ryw-token", &token(7 + before as u64))]));
    for uri in [
        "http://evil.example/",
        "http://a.svc.example/",
        "http://b.svc.example:81/",
        "http://api.example/",
        "https://api.example/",
    ] {
        server.ask(&layer, get(uri)).await;
    }
    let told: Vec<_> = server.seen().iter().map(|seen| seen.all("ryw-token").concat()).collect();
    assert_eq!(told, ["", "", &token(8), "", &token(9)]);
}

#[tokio::test]
async fn what_a_copied_request_brings_along_is_taken_out() {
    let session = Session::builder().send_to("a.example").id("mine".parse().unwrap()).build().unwrap();
    let layer = RywClientLayer::new(session);
    let server = Server::new(|_, _| answer(200, &[]));
    let ask = async |uri: &str| {
        let mut request = get(uri);
        let headers = request.headers_mut();
        headers.insert("ryw-token", token(1).parse().unwrap());
        headers.insert("x-session-id", "mine".parse().unwrap());
        headers.insert("baggage", "a=1,ryw=abc".parse().unwrap());
        server.ask(&layer, request).await;
        server.seen().pop().unwrap()
    };
    let ours = ask("http://a.example/").await;
    assert_eq!(ours.all("baggage"), ["a=1,ryw=abc"]);
    let foreign = ask("http://b.example/").await;
    assert!(foreign.all("ryw-token").is_empty() && foreign.all("x-session-id").is_empty(), "{foreign:?}");
    assert_eq!(foreign.all("baggage"), ["a=1"]);
}

#[tokio::test]
async fn a_channel_belongs_to_the_session_that_is_on_it() {
    let layer = RywClientLayer::new(Session::builder().send_to("a.example").build().unwrap());
    let server = Server::new(|_, _| answer(200, &[("ryw-token", &token(7))]));
    server.ask(&layer, get("/path")).await;
    server.ask(&layer, get("/path")).await;
    assert_eq!(server.seen()[1].all("ryw-token"), [token(7)]);
}

#[tokio::test]
async fn baggage_carries_it_where_asked_to() {
    let server = Server::new(|_, _| answer(200, &[("ryw-token", &token(7))]));
    let layer = RywClientLayer::new(Session::builder().send_to("a.example").build().unwrap()).baggage(true);
    for _ in 0..2 {
        server.ask(&layer, get("http://a.example/")).await;
    }
    server.ask(&layer, get("http://b.example/")).await;
    let said: Vec<_> = server.seen().iter().map(|seen| seen.all("baggage").concat()).collect();
    assert_eq!(said, [String::new(), format!("ryw={}", token(7)), String::new()]);
}
