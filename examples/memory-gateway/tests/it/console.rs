//! Who can reach the operators' page, and what instances say about themselves.

use std::io::Write;

use crate::{
    gateway::Gateway,
    program::{command, finish},
};

const STATS: &str = "/api/admin/read-after-write/stats";

async fn status(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    use http_body_util::{BodyExt, Full};
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn it_is_off_unless_asked_for() {
    let gateway = Gateway::start(&[]).await;
    for path in ["/ryw", "/ryw/live", "/ryw/decisions"] {
        assert_eq!(gateway.get(path, &[]).await.status.as_u16(), 404, "{path}");
    }
}

#[tokio::test]
async fn it_has_a_listener_of_its_own() {
    let mut gateway = Gateway::start(&["--console", "127.0.0.1:0"]).await;
    let url = gateway.console().await;
    assert_eq!(gateway.get("/ryw", &[]).await.status.as_u16(), 404);
    let (code, page) = status(&url, &[]).await;
    assert!(code == 200 && page.contains("Read-your-writes"), "{code} {page}");
    assert_eq!(status(&url, &[("host", "evil.example")]).await.0, 421);
    assert_eq!(status(&format!("{url}/"), &[]).await.0, 308, "the same place");
    let stats = url.replace("/ryw", STATS);
    assert_eq!(status(&stats, &[]).await.0, 200);
    assert_eq!(status(&stats, &[("host", "evil.example")]).await.0, 421);
    assert_eq!(status(&url.replace("/ryw", "/v1/memory/acme/k"), &[]).await.0, 404, "values are not for operators");
}

#[tokio::test]
async fn other_machines_need_the_token() {
    let refused = finish(command(&["--console", "0.0.0.0:0"])).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("--console-token-file"), "{refused:?}");

    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "short").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let refused =
        finish(command(&["--listen", "127.0.0.1:0", "--console", "0.0.0.0:0", "--console-token-file", &path])).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("16 random bytes"), "{refused:?}");
    assert!(!refused.stderr.contains("short\n") && refused.stdout.is_empty(), "nothing listens: {refused:?}");

    writeln!(file.reopen().unwrap(), "correct horse battery").unwrap();
    let mut gateway = Gateway::start(&["--console", "0.0.0.0:0", "--console-token-file", &path]).await;
    let url = gateway.console().await;
    assert!(url.starts_with("http://127.0.0.1:") && url.contains("token as password"), "{url}");
    let url = url.split(' ').next().unwrap().to_owned();
    for path in ["/ryw", "/ryw/live", "/metrics", STATS] {
        let url = url.replace("/ryw", path);
        assert_eq!(status(&url, &[]).await.0, 401, "{path}");
        assert_eq!(status(&url, &[("authorization", "Bearer correct horse batterx")]).await.0, 401, "{path}");
        assert_eq!(status(&url, &[("authorization", "Bearer correct horse battery")]).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn statistics_are_not_for_pages_that_rebind_their_name() {
    let gateway = Gateway::start(&[]).await;
    for (host, expected) in [("localhost:8080", 200), ("evil.example", 421)] {
        assert_eq!(gateway.get(STATS, &[("host", host)]).await.status.as_u16(), expected, "{host}");
        assert_eq!(gateway.get("/v1/health", &[("host", host)]).await.status.as_u16(), 200, "{host}");
    }
}

#[tokio::test]
async fn what_listens_everywhere_says_where_it_is_opened() {
    for (everywhere, here) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "::1")] {
        let gateway = Gateway::from(command(&["--listen", everywhere])).await;
        assert_eq!(gateway.address.ip().to_string(), here);
        assert_eq!(gateway.get("/livez", &[]).await.status.as_u16(), 200, "{everywhere}");
    }
}

#[tokio::test]
async fn statistics_are_not_for_other_machines() {
    // The last of two counts.
    let gateway = Gateway::from(command(&["--listen", "0.0.0.0:0"])).await;
    assert_eq!(gateway.get(STATS, &[]).await.status.as_u16(), 404);
    assert_eq!(gateway.get("/v1/health", &[]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn it_tells_neither_names_nor_tokens() {
    let mut gateway = Gateway::start(&["--console", "127.0.0.1:0"]).await;
    let url = gateway.console().await;
    let headers = [("x-session-id", "alice-of-acme"), ("x-consistency-level", "SESSION")];
    let token = gateway.put("/v1/memory/acme/secret-key", &headers, "secret-value").await;
    let token = token.header("ryw-token").unwrap().to_owned();
    gateway.get("/v1/memory/acme/secret-key", &headers).await;
    for path in ["/ryw/live", "/ryw/decisions", "/ryw/health", "/ryw/nodes", "/ryw/routing", STATS] {
        let (code, text) = status(&url.replace("/ryw", path), &[]).await;
        assert_eq!(code, 200, "{path}");
        for secret in ["alice", "acme", "secret", &token[..20]] {
            assert!(!text.contains(secret), "{secret} in {path}: {text}");
        }
    }
    let (_, found) = status(&format!("{url}/decisions?session=alice-of-acme"), &[]).await;
    assert_eq!(found.matches("\"number\"").count(), 2, "{found}");
}

#[tokio::test]
async fn alive_and_ready_are_two_questions() {
    let gateway = Gateway::start(&[]).await;
    for path in ["/livez", "/readyz"] {
        let reply = gateway.get(path, &[]).await;
        assert_eq!((reply.status.as_u16(), &*reply.text()), (200, "ok\n"), "{path}");
    }
}
