//! Who may look.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::problem::problem;

/// The shortest secret, in bytes.
const MIN_TOKEN: usize = 16;

/// Only what comes from here, and nobody may show it inside of another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A secret that is too short to be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a console token of {given} bytes is too short: give at least {MIN_TOKEN} random bytes")]
pub struct TokenTooShort {
    /// Its length, in bytes.
    pub given: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// Names, besides those of the loopback interface, that the page may be asked for by.
    pub(crate) hosts: Vec<String>,
    token: Option<Secret>,
}

/// Hashed, so that comparing takes the same time whatever the length.
#[derive(Clone)]
struct Secret([u8; 32]);

impl Access {
    pub(crate) fn set_token(&mut self, token: &str) -> Result<(), TokenTooShort> {
        check(token)?;
        self.token = Some(Secret::of(token));
        Ok(())
    }

    /// The answer to who may not look.
    fn refuse(&self, request: &Request) -> Option<Response> {
        let Some(secret) = &self.token else {
            let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
            let host = host.or(request.uri().authority().map(|authority| authority.as_str()));
            let refused = || {
                problem(
                    StatusCode::MISDIRECTED_REQUEST,
                    "not by this name: localhost, 127.0.0.1 and [::1] are answered, and what Console::allow_host was given",
                )
            };
            return (!host.is_some_and(|host| self.admits(host))).then(refused);
        };
        if given(request.headers()).is_some_and(|given| secret.is(&given)) {
            return None;
        }
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"console\", charset=\"UTF-8\"")];
        let refused = problem(StatusCode::UNAUTHORIZED, "the console's token, as a password or as a bearer token");
        Some((ask, refused).into_response())
    }

    fn admits(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((v6, _)) => v6,
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let mut admitted = ["localhost", "127.0.0.1", "::1"].into_iter().chain(self.hosts.iter().map(String::as_str));
        admitted.any(|known| known.eq_ignore_ascii_case(name))
    }
}

pub(crate) fn check(token: &str) -> Result<(), TokenTooShort> {
    if token.len() < MIN_TOKEN { Err(TokenTooShort { given: token.len() }) } else { Ok(()) }
}

impl Secret {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    fn is(&self, given: &str) -> bool {
        self.0.ct_eq(&Self::of(given).0).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The bearer token, or the password of whatever user.
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    let decoded = STANDARD.decode(value.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

/// What is not there says so in the words of all other errors.
fn said(response: Response, method: &Method) -> Response {
    let detail = match response.status() {
        _ if response.headers().contains_key(header::CONTENT_TYPE) => return response,
        StatusCode::NOT_FOUND => "there is nothing here; where the page is served, it is at /ryw".to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => format!("{method} is not possible here: accepted are GET and HEAD"),
        _ => return response,
    };
    let mut said = problem(response.status(), &detail);
    if let Some(allow) = response.headers().get(header::ALLOW) {
        said.headers_mut().insert(header::ALLOW, allow.clone());
    }
    said
}

/// Around every route.
pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut response = match access.refuse(&request) {
        Some(refusal) => refusal,
        None => {
            let method = request.method().clone();
            said(next.run(request).await, &method)
        }
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
