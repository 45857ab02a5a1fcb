//! Reads that no node is fresh enough for are made again, writes never.

use std::time::Duration;

use http::Method;
use ryw_client::{GaveUp, Report, Retry, RywClientLayer, Session};
use tokio::time::Instant;

use crate::fake::{Server, answer, get, post, token};

const A: &str = "http://a.example/";

fn behind(times: usize) -> Server {
    Server::new(move |before, _| match before {
        before if before < times => {
            answer(503, &[("retry-after", "1"), ("x-consistency-enforced", "false"), ("ryw-token", &token(7))])
        }
        _ => answer(200, &[]),
    })
}

fn report(response: &http::Response<bytes::Bytes>) -> Report {
    *response.extensions().get::<Report>().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_as_it_is_told_and_carries_what_it_has_learned() {
    let server = behind(2);
    let start = Instant::now();
    let response = server.ask(&RywClientLayer::new(Session::new()), get(A)).await;
    assert_eq!(response.status(), 200);
    let report = report(&response);
    assert_eq!((report.attempts, report.gave_up), (3, None));
    assert_eq!(server.seen()[2].all("ryw-token"), [token(7)], "once, not once per attempt");
    // The clock is paused, so this is exactly what was slept.
    let slept = start.elapsed();
    assert!(slept >= Duration::from_secs(2) && slept <= Duration::from_millis(2250), "{slept:?}");
    assert!(report.waited >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_write_is_never_made_again() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "BREW"] {
        for status in [503, 412] {
            let server = Server::new(move |_, _| answer(status, &[("retry-after", "1")]));
            let mut request = post(A, "x");
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            let response = server.ask(&RywClientLayer::new(Session::new()), request).await;
            assert_eq!(response.status(), status);
            assert_eq!((server.seen().len(), report(&response).gave_up), (1, Some(GaveUp::Unsafe)), "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_named_as_a_read_is_one_and_its_body_is_sent_again() {
    let server = behind(1);
    let layer = RywClientLayer::new(Session::new()).retry(Retry::new().reads("/search"));
    let response = server.ask(&layer, post("http://a.example/search", "query")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(server.seen()[1].body, "query");
}

#[tokio::test(start_paused = true)]
async fn limits_end_it() {
    let deadline = Retry::new().limit(100).budget(100, 0).deadline(Duration::from_millis(3500));
    for (retry, attempts, why) in [
        (Retry::new().limit(2), 3, GaveUp::Limit),
        (deadline, 4, GaveUp::Deadline),
        (Retry::new().budget(1, 0), 2, GaveUp::Budget),
    ] {
        let server = behind(usize::MAX);
        let response = server.ask(&RywClientLayer::new(Session::new()).retry(retry), get(A)).await;
        assert_eq!(response.status(), 503, "the caller gets the last answer");
        assert_eq!((report(&response).attempts, report(&response).gave_up), (attempts, Some(why)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_retry_after_is_not_waited_for() {
    for after in ["99999999", "18446744073709551615", "6"] {
        let server = Server::new(move |_, _| answer(503, &[("retry-after", after)]));
        let start = Instant::now();
        let response = server.ask(&RywClientLayer::new(Session::new()), get(A)).await;
        assert_eq!((report(&response).gave_up, start.elapsed()), (Some(GaveUp::Deadline), Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_shared_by_all_requests_of_a_layer() {
    let layer = RywClientLayer::new(Session::new()).retry(Retry::new().limit(1).budget(3, 10));
    let mut attempts = 0;
    for _ in 0..100 {
        let server = behind(usize::MAX);
        attempts += report(&server.ask(&layer, get(A)).await).attempts;
    }
    assert!((110..=113).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_the_callers() {
    for (status, headers) in [
        (503, &[][..]),
        (500, &[("retry-after", "1")]),
        (429, &[("retry-after", "1")]),
        (404, &[]),
        (409, &[("ryw-lost", "?1;epoch=2;was=1")]),
    ] {
        let server = Server::new(move |_, _| answer(status, headers));
        let response = server.ask(&RywClientLayer::new(Session::new()), get(A)).await;
        assert_eq!((server.seen().len(), report(&response).gave_up), (1, None), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_host_means_by_such_an_answer_is_the_callers_to_know() {
    let layer = RywClientLayer::new(Session::builder().send_to("ours.example").build().unwrap());
    let server = behind(1);
    let response = server.ask(&layer, get(A)).await;
    assert_eq!((response.status().as_u16(), server.seen().len()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_redirected_to_a_read_is_one_from_there_on() {
    let server = Server::new(|before, _| match before {
        0 => answer(303, &[("location", "/page")]),
        1 => answer(503, &[("retry-after", "1")]),
        _ => answer(200, &[]),
    });
    let layer = RywClientLayer::new(Session::new()).follow_redirects(1);
    assert_eq!(server.ask(&layer, post(A, "x")).await.status(), 200);
    let methods: Vec<_> = server.seen().iter().map(|seen| seen.method.to_string()).collect();
    assert_eq!(methods, ["POST", "GET", "GET"]);

    // The same write at another place stays one.
    let server = Server::new(|before, _| match before {
        0 => answer(307, &[("location", "/elsewhere")]),
        _ => answer(503, &[("retry-after", "1")]),
    });
    assert_eq!(server.ask(&layer, post(A, "x")).await.status(), 503);
    assert_eq!(server.seen().len(), 2);
}
