//! Nobody else reads what operators read.

use axum::http::StatusCode;

use crate::stage::{Stage, ask, get};

const PATHS: [&str; 8] = [
    "/ryw",
    "/ryw/console.css",
    "/ryw/console.js",
    "/ryw/live",
    "/ryw/health",
    "/ryw/nodes",
    "/ryw/routing",
    "/ryw/decisions",
];
const TOKEN: &str = "correct horse battery";

#[tokio::test]
async fn a_page_that_rebinds_its_name_gets_nothing() {
    let stage = Stage::new();
    let router = stage.console().allow_host("ops.example").into_router();
    for path in PATHS {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9090", "[::1]:9090", "ops.example"] {
            let answer = ask(&router, path, &[("host", host)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{path} {host}: {}", answer.text);
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9090", "", "[::1", "10.0.0.1"] {
            let answer = ask(&router, path, &[("host", host)]).await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{path} {host}");
        }
        assert_eq!(ask(&router, path, &[]).await.status, StatusCode::MISDIRECTED_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn with_a_token_nobody_gets_in_without_it() {
    let stage = Stage::new();
    let router = stage.console().token(TOKEN).unwrap().into_router();
    // "ops:correct horse battery", and the same with another letter.
    let basic = "Basic b3BzOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==";
    for path in PATHS {
        for right in [&*format!("Bearer {TOKEN}"), &format!("bearer {TOKEN}"), basic] {
            let answer = ask(&router, path, &[("host", "any.example"), ("authorization", right)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{path} {right}");
        }
        for wrong in [
            "Bearer ",
            "Bearer correct horse batterz",
            "Bearer correct horse batter",
            "Bearer correct horse battery2",
            "Basic b3BzOmNvcnJlY3QgaG9yc2UgYmF0dGVyeg==",
            "Basic !",
            "Basic",
            TOKEN,
        ] {
            let answer = ask(&router, path, &[("host", "localhost"), ("authorization", wrong)]).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {wrong}");
            assert!(answer.headers.contains_key("www-authenticate"));
        }
        assert_eq!(ask(&router, path, &[("host", "localhost")]).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[test]
fn a_short_token_is_refused_and_not_repeated() {
    let error = Stage::new().console().token("hunter2").map(drop).unwrap_err().to_string();
    assert!(error.contains("16") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn browsers_are_told_to_take_nothing_from_elsewhere_and_to_keep_nothing() {
    let stage = Stage::new();
    let router = stage.console().into_router();
    for path in PATHS.into_iter().chain(["/ryw/decisions?limit=x"]) {
        for host in ["localhost", "evil.example"] {
            let headers = ask(&router, path, &[("host", host)]).await.headers;
            let header = |name: &str| headers.get(name).unwrap_or_else(|| panic!("{name} of {path}")).to_str().unwrap();
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!((header("x-frame-options"), header("cache-control")), ("DENY", "no-store"));
            assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"));
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }
}

#[tokio::test]
async fn the_page_names_nothing_outside_of_itself() {
    let stage = Stage::new();
    let router = stage.console().into_router();
    for path in ["/ryw", "/ryw/console.css", "/ryw/console.js"] {
        let text = get(&router, path).await.text.replace("http://www.w3.org/2000/svg", "");
        for outside in
            ["http:", "https:", "//cdn", "@import", "innerHTML", "insertAdjacentHTML", "eval(", "onclick=", "style=\""]
        {
            assert!(!text.contains(outside), "{outside} in {path}");
        }
    }
}

#[tokio::test]
async fn it_can_only_be_read() {
    let stage = Stage::new();
    let router = stage.console().into_router();
    for path in PATHS {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            use tower::ServiceExt;
            let request = axum::http::Request::builder().method(method).uri(path).header("host", "localhost");
            let answer = router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(answer.headers()["allow"], "GET,HEAD", "{method} {path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let stage = Stage::new();
    let router = stage.console().into_router();
    let answer = get(&router, "/ryw/nothing").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (404, &"application/problem+json".parse().unwrap())
    );
    assert!(answer.text.contains("it is at /ryw"), "{}", answer.text);
}

/// On another listener than the page, for the same eyes.
#[tokio::test]
async fn other_routes_have_the_same_guard() {
    let stage = Stage::new();
    let routes = || axum::Router::new().route("/sums", axum::routing::get("sums"));
    let app = stage.console().guard(routes()).merge(axum::Router::new().fallback(async || "others"));
    for (path, host, expected) in
        [("/sums", "localhost", 200), ("/sums", "evil.example", 421), ("/others", "evil.example", 200)]
    {
        assert_eq!(ask(&app, path, &[("host", host)]).await.status.as_u16(), expected, "{path} {host}");
    }
    let app = stage.console().token(TOKEN).unwrap().guard(routes());
    assert_eq!(get(&app, "/sums").await.status, StatusCode::UNAUTHORIZED);
}
