//! reqwest with a session, against a real server.

use axum::{Router, http::HeaderMap, response::Redirect, routing::get};
use ryw_client::{Report, RywClientLayer, Session, reqwest::Client};

use crate::service::{layer, notes, serve, store};

#[tokio::test]
async fn reads_its_writes_also_after_a_redirect() {
    let store = store();
    let address = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let url = |path: &str| format!("http://{address}/{path}");
    let client = Client::new(Session::new()).unwrap();
    client.put(url("notes/k")).body("text").send().await.unwrap();
    let plain = ::reqwest::get(url("notes/k")).await.unwrap();
    assert_eq!(plain.status(), 404, "the test needs a replica that is behind");
    assert_eq!(client.get(url("notes/k")).send().await.unwrap().text().await.unwrap(), "text");

    let response = client.post(url("submit/j")).with(|request| request.body("posted")).send().await.unwrap();
    assert_eq!(response.url().as_str(), url("notes/j"));
    assert_eq!(response.extensions().get::<Report>().map(|report| report.redirects), Some(1));
    assert_eq!(response.text().await.unwrap(), "posted");
}

/// `localhost` and `127.0.0.1` are two hosts, and one server.
#[tokio::test]
async fn a_redirect_to_another_host_is_told_nothing() {
    let echo =
        async |headers: HeaderMap| format!("{} {}", headers.contains_key("ryw-token"), headers.contains_key("cookie"));
    let foreign = serve(Router::new().route("/echo", get(echo))).await;
    let target = format!("http://localhost:{}/echo", foreign.port());
    let store = store();
    let ours = notes(&store).route("/leave", get(async move || Redirect::temporary(&target)));
    let ours = ours.route("/echo", get(echo));
    let address = serve(ours.layer(layer(&store).build().unwrap())).await;
    let session = Session::new();
    let client = Client::build(::reqwest::Client::builder().no_proxy(), RywClientLayer::new(session.clone())).unwrap();
    client.put(format!("http://{address}/notes/k")).body("x").send().await.unwrap();
    assert!(!session.is_empty());
    let ask = async |path: &str| {
        let request = client.get(format!("http://{address}/{path}"));
        let request = request.header(http::header::COOKIE, "a=b".parse().unwrap());
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(ask("echo").await, "true true");
    assert_eq!(ask("leave").await, "false false");
}

#[tokio::test]
async fn an_url_that_cannot_be_used_is_an_error_when_it_is_sent() {
    let client = Client::new(Session::new()).unwrap();
    assert!(client.get("no url").send().await.unwrap_err().is_builder());
}
