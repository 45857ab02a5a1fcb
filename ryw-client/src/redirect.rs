//! Where a redirect leads. Pure.

use http::{HeaderMap, Method, StatusCode, Uri, header};
use url::Url;

/// Longest `Location` that is followed, in bytes.
const MAX_LOCATION: usize = 8 * 1024;

/// The request that a redirect asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// The body is sent again.
    pub(crate) keeps_body: bool,
}

/// `None` when the response is no redirect, or none that can be followed.
pub(crate) fn next(status: StatusCode, method: &Method, uri: &Uri, response: &HeaderMap) -> Option<Next> {
    let (method, keeps_body) = match status {
        StatusCode::SEE_OTHER if *method == Method::HEAD => (Method::HEAD, false),
        StatusCode::SEE_OTHER => (Method::GET, false),
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if *method == Method::POST => (Method::GET, false),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => (method.clone(), true),
        _ => return None,
    };
    let location = response.get(header::LOCATION)?.to_str().ok().filter(|location| location.len() <= MAX_LOCATION)?;
    // A request without a host can't leave its channel.
    let base = Url::parse(&uri.to_string()).ok().filter(|_| uri.host().is_some())?;
    let mut target = base.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    target.set_fragment(None);
    // What stands before an `@` is a password, and not ours.
    target.set_username("").ok()?;
    target.set_password(None).ok()?;
    Some(Next { method, uri: target.as_str().parse().ok()?, keeps_body })
}

/// Takes out of the headers what is not meant for the next hop.
pub(crate) fn adapt(headers: &mut HeaderMap, from: &Uri, next: &Next) {
    if !next.keeps_body {
        for name in [
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::CONTENT_LANGUAGE,
            header::CONTENT_LOCATION,
            header::TRANSFER_ENCODING,
        ] {
            headers.remove(name);
        }
    }
    headers.remove(header::HOST);
    let origin = |uri: &Uri| (uri.scheme().cloned(), uri.host().map(str::to_ascii_lowercase), uri.port_u16());
    if origin(from) != origin(&next.uri) {
        for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn leads(status: u16, method: &Method, from: &'static str, location: &str) -> Option<(Method, String, bool)> {
        let response = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_str(location).unwrap())]);
        let next = next(StatusCode::from_u16(status).unwrap(), method, &Uri::from_static(from), &response)?;
        Some((next.method, next.uri.to_string(), next.keeps_body))
    }

    #[test]
    fn methods_and_targets() {
        const A: &str = "https://a.example/x/y?q=1";
        let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
        for (status, method, location, expected) in [
            (303, &post, "/notes/1", Some((&get, "https://a.example/notes/1", false))),
            (303, &put, "z", Some((&get, "https://a.example/x/z", false))),
            (302, &post, "?q=2", Some((&get, "https://a.example/x/y?q=2", false))),
            (301, &get, "//b.example/", Some((&get, "https://b.example/", true))),
            (302, &put, "/z", Some((&put, "https://a.example/z", true))),
            (307, &post, "/z#top", Some((&post, "https://a.example/z", true))),
            (308, &get, "http://u:p@b.example/z", Some((&get, "http://b.example/z", true))),
            (307, &get, "javascript:alert(1)", None),
            (307, &get, "file:///etc/passwd", None),
            (307, &get, "https://", None),
            (304, &get, "/z", None),
            (300, &get, "/z", None),
            (200, &get, "/z", None),
        ] {
            let expected =
                expected.map(|(method, uri, keeps): (&Method, &str, bool)| (method.clone(), uri.into(), keeps));
            assert_eq!(leads(status, method, A, location), expected, "{status} {method} {location}");
        }
        assert_eq!(leads(302, &get, A, &"x".repeat(MAX_LOCATION + 1)), None);
        assert_eq!(leads(302, &get, "/path-only", "https://a.example/"), None);
    }

    #[test]
    fn secrets_stay_with_their_host() {
        let all = || {
            HeaderMap::from_iter(
                [header::AUTHORIZATION, header::COOKIE, header::CONTENT_TYPE, header::HOST, header::ACCEPT]
                    .map(|name| (name, HeaderValue::from_static("x"))),
            )
        };
        let names = |from: &'static str, to: &'static str, keeps_body| {
            let mut headers = all();
            let next = Next { method: Method::GET, uri: Uri::from_static(to), keeps_body };
            adapt(&mut headers, &Uri::from_static(from), &next);
            let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names("https://a/x", "https://A/y", true), ["accept", "authorization", "content-type", "cookie"]);
        assert_eq!(names("https://a/x", "https://a/y", false), ["accept", "authorization", "cookie"]);
        for elsewhere in ["https://b/", "http://a/", "https://a:8443/"] {
            assert_eq!(names("https://a/x", elsewhere, true), ["accept", "content-type"], "{elsewhere}");
        }
    }
}
