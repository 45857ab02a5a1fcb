//! Redirects are followed with what the session knows at each hop.

use http::Method;
use ryw_client::{Report, RywClientLayer, Session};

use crate::fake::{Server, answer, get, post, token};

#[tokio::test]
async fn after_post_redirect_get_the_page_shows_what_was_posted() {
    let server = Server::new(|before, _| match before {
        0 => answer(303, &[("location", "/notes/1"), ("ryw-token", &token(7))]),
        _ => answer(200, &[]),
    });
    let layer = RywClientLayer::new(Session::new()).follow_redirects(5);
    let response = server.ask(&layer, post("http://a.example/notes", "text")).await;
    let report = response.extensions().get::<Report>().unwrap();
    assert_eq!((report.attempts, report.redirects, report.tokens), (2, 1, 1));
    let [first, second] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!((&first.method, first.body.as_str()), (&Method::POST, "text"));
    assert_eq!((&second.method, second.body.as_str()), (&Method::GET, ""));
    assert_eq!(
        (second.uri.to_string().as_str(), second.all("ryw-token")),
        ("http://a.example/notes/1", vec![&*token(7)])
    );
}

#[tokio::test]
async fn another_host_is_not_told() {
    let server = Server::new(|before, _| match before {
        0 => answer(302, &[("location", "https://evil.example/x"), ("ryw-token", &token(7))]),
        1 => answer(302, &[("location", "http://a.example/back"), ("ryw-token", &token(99))]),
        _ => answer(200, &[]),
    });
    let layer = RywClientLayer::new(Session::new()).follow_redirects(5);
    let mut request = get("http://a.example/");
    request.headers_mut().insert("authorization", "Bearer x".parse().unwrap());
    request.headers_mut().insert("accept", "text/plain".parse().unwrap());
    server.ask(&layer, request).await;
    let [_, evil, back] = &server.seen()[..] else { panic!("three requests") };
    assert!(evil.all("ryw-token").is_empty() && evil.all("authorization").is_empty(), "{evil:?}");
    assert_eq!(evil.all("accept"), ["text/plain"]);
    assert_eq!(back.all("ryw-token"), [token(7)]);
    assert!(back.all("authorization").is_empty(), "it was given up on the way");
}

#[tokio::test]
async fn a_body_is_sent_again_where_the_redirect_says_so() {
    let server = Server::new(|before, _| match before {
        0 => answer(307, &[("location", "/elsewhere")]),
        _ => answer(200, &[]),
    });
    let layer = RywClientLayer::new(Session::new()).follow_redirects(1);
    server.ask(&layer, post("http://a.example/", "text")).await;
    let second = server.seen().pop().unwrap();
    assert_eq!((second.method, second.body.as_str()), (Method::POST, "text"));
}

#[tokio::test]
async fn loops_end_and_none_are_followed_unasked() {
    let looping = || Server::new(|_, _| answer(302, &[("location", "/again")]));
    for (limit, requests) in [(0, 1), (3, 4)] {
        let server = looping();
        let layer = RywClientLayer::new(Session::new()).follow_redirects(limit);
        let response = server.ask(&layer, get("http://a.example/")).await;
        assert_eq!((response.status().as_u16(), server.seen().len()), (302, requests));
    }
}

#[tokio::test]
async fn a_redirect_that_leaves_https_is_told_only_where_a_rule_says_http() {
    let server = Server::new(|before, _| match before {
        0 => answer(302, &[("location", "http://a.example/x")]),
        1 => answer(302, &[("location", "http://a.example/y")]),
        _ => answer(200, &[]),
    });
    for (rules, told) in [(&["a.example"][..], false), (&["https://a.example", "http://a.example"], true)] {
        let session = rules.iter().fold(Session::builder(), |session, rule| session.send_to(*rule));
        let layer = RywClientLayer::new(session.id("mine".parse().unwrap()).build().unwrap()).follow_redirects(5);
        let server = server.fresh();
        server.ask(&layer, get("https://a.example/")).await;
        let named: Vec<_> = server.seen().iter().map(|seen| !seen.all("x-session-id").is_empty()).collect();
        assert_eq!(named, [true, told, told], "{rules:?}");
    }
    // Where it began in clear text, the rule admits that.
    let layer =
        RywClientLayer::new(Session::builder().send_to("a.example").id("mine".parse().unwrap()).build().unwrap());
    let server = server.fresh();
    server.ask(&layer.follow_redirects(5), get("http://a.example/")).await;
    assert!(server.seen().iter().all(|seen| seen.all("x-session-id") == ["mine"]));
}
