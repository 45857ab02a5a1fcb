//! Stage 7: tell the client.

use std::{cell::RefCell, fmt::Write, time::Duration};

use cookie::{Cookie, SameSite, time::Duration as CookieDuration};
use http::{HeaderMap, HeaderValue, header};
use ryw_core::{Level, Lost, Reason, SessionId, wire};

use crate::{
    config::{Config, CookiePolicy},
    decide::Route,
    identify::{CookieName, Slot},
};

/// What a response is told about its request.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    pub(crate) route: &'a Route,
    pub(crate) reason: Reason,
    pub(crate) level: Level,
    pub(crate) waited: Duration,
    /// `None` where there is nothing to say of the level.
    pub(crate) enforced: Option<bool>,
    pub(crate) session: Option<&'a SessionId>,
    pub(crate) token: Option<String>,
    /// Tokens of other services that were called, as they came.
    pub(crate) relayed: &'a [HeaderValue],
    pub(crate) set_cookie: bool,
    /// What the browser calls the session's cookie.
    pub(crate) cookie: Option<CookieName>,
    /// Where the browser keeps the session that was born.
    pub(crate) slot: Option<Slot>,
    /// What it need not keep any more.
    pub(crate) removed: &'a [CookieName],
    /// What it keeps of other sessions that it goes on as, where that is over.
    pub(crate) rewritten: &'a [(Slot, String)],
    /// A link that was shared has brought it.
    pub(crate) by_link: bool,
    /// It was served by the primary because of what its session must see.
    pub(crate) pinned: bool,
    /// There is no session, and nothing that it must see.
    pub(crate) anonymous: bool,
    pub(crate) lost: Option<Lost>,
}

pub(crate) fn annotate(config: &Config, note: Note<'_>, headers: &mut HeaderMap) {
    match note.enforced {
        Some(enforced) => {
            let enforced = HeaderValue::from_static(if enforced { "true" } else { "false" });
            headers.insert(&wire::CONSISTENCY_ENFORCED, enforced);
        }
        None => drop(headers.remove(&wire::CONSISTENCY_ENFORCED)),
    }
    if let Some(session) = note.session {
        headers.insert(&wire::SESSION_ID, session.header_value().clone());
    }
    if config.tell_route
        && let Some(route) = ROUTES.with_borrow_mut(|routes| routes.get(&note))
    {
        headers.insert(&wire::ROUTE, route);
    }
    if let Some(lost) = note.lost {
        headers.insert(&wire::LOST, lost.header_value());
    }
    let private = note.session.is_some() || note.token.is_some() || !note.relayed.is_empty();
    if private || note.by_link || note.pinned {
        keep_private(headers);
    }
    vary(config, note.anonymous, headers);
    if note.by_link {
        // The URL tells when something was written, which is nothing for other sites.
        headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("strict-origin-when-cross-origin"));
    }
    if let Some(token) = note.token {
        if note.set_cookie
            && let Some(name) = note.cookie
        {
            let age = i64::try_from(config.token_max_age.as_secs()).unwrap_or(i64::MAX);
            set_cookie(headers, config, name, &token, age);
            if let Some(slot) = note.slot {
                set_cookie(headers, config, name.with(slot), &token, age);
            }
            for (slot, token) in note.rewritten {
                set_cookie(headers, config, name.with(*slot), token, age);
            }
            let born = note.slot.map(|slot| name.with(slot));
            for name in note.removed.iter().filter(|name| born != Some(**name)) {
                set_cookie(headers, config, *name, "", 0);
            }
        }
        set(headers, &wire::TOKEN, token);
    }
    for token in note.relayed {
        headers.append(&wire::TOKEN, token.clone());
    }
}

/// Values that this thread has written before: there are few, and nearly every response has one of them.
struct Routes(Vec<(Route, Reason, Level, HeaderValue)>);

thread_local! {
    static ROUTES: RefCell<Routes> = const { RefCell::new(Routes(Vec::new())) };
}

impl Routes {
    /// More than nodes, reasons and levels come to in a deployment.
    const LIMIT: usize = 64;

    fn get(&mut self, note: &Note<'_>) -> Option<HeaderValue> {
        let is_same = |(route, reason, level, _): &&(Route, Reason, Level, HeaderValue)| {
            (route, reason, level) == (note.route, &note.reason, &note.level)
        };
        if note.waited.is_zero()
            && let Some((.., value)) = self.0.iter().find(is_same)
        {
            return Some(value.clone());
        }
        let value = HeaderValue::try_from(route(note)).ok()?;
        if note.waited.is_zero() {
            if self.0.len() >= Self::LIMIT {
                self.0.clear();
            }
            self.0.push((note.route.clone(), note.reason, note.level, value.clone()));
        }
        Some(value)
    }
}

/// A structured field (RFC 9651): an item with parameters.
fn route(note: &Note<'_>) -> String {
    let mut text = String::with_capacity(80);
    match note.route {
        Route::Primary => text.push_str("primary"),
        Route::Replica { node } => {
            text.push_str("replica");
            if let Some(node) = node {
                // A string in a structured field is ASCII; quotes and backslashes are escaped.
                text.push_str(";node=\"");
                for byte in node.as_str().bytes().filter(|byte| matches!(byte, b' '..=b'~')) {
                    if matches!(byte, b'"' | b'\\') {
                        text.push('\\');
                    }
                    text.push(char::from(byte));
                }
                text.push('"');
            }
        }
    }
    // Writing to a String does not fail.
    let _ = write!(text, ";reason={};level={}", note.reason, note.level.token());
    if note.waited > Duration::ZERO {
        let _ = write!(text, ";waited={}", note.waited.as_millis());
    }
    text
}

fn set_cookie(headers: &mut HeaderMap, config: &Config, name: CookieName, value: &str, age: i64) {
    let cookie = Cookie::build((name.to_string(), value))
        .path("/")
        .secure(config.cookie == CookiePolicy::Secure)
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(CookieDuration::seconds(age))
        .to_string();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.append(header::SET_COOKIE, cookie);
    }
}

/// What a cache has kept for one session is not for another, nor for the same one when it has written since.
fn vary(config: &Config, anonymous: bool, headers: &mut HeaderMap) {
    static BY_FIELDS: HeaderValue = HeaderValue::from_static("ryw-token, x-session-id, x-consistency-level");
    static BY_COOKIE: HeaderValue = HeaderValue::from_static("ryw-token, x-session-id, x-consistency-level, cookie");
    // Deliberately not for who has no session: browsers send other cookies as well, and none of these pages could be kept.
    let by_cookie = config.cookie != CookiePolicy::Off && !anonymous;
    headers.append(header::VARY, if by_cookie { BY_COOKIE.clone() } else { BY_FIELDS.clone() });
}

/// A shared cache must not hand one session's token to another. What else the service has said about caching stays.
fn keep_private(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        return;
    }
    let said = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let said = said.flat_map(|value| value.split(',')).map(str::trim).filter(|directive| !directive.is_empty());
    let is = |directive: &str, names: &[&str]| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        names.iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let mut kept: Vec<_> = said.filter(|directive| !is(directive, &["public", "s-maxage"])).collect();
    if !kept.iter().any(|directive| is(directive, &["private", "no-store"])) {
        kept.push("private");
    }
    let kept = kept.join(", ");
    set(headers, &header::CACHE_CONTROL, kept);
}

fn set(headers: &mut HeaderMap, name: &http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_is_what_would_be_written_now() {
        let node = |name: &str| Route::Replica { node: Some(name.into()) };
        let mut routes = Routes(Vec::new());
        for ms in 0..200 {
            for route in [Route::Primary, node("r1"), node("r2"), Route::Replica { node: None }] {
                for (reason, waited) in [(Reason::CaughtUp, 0), (Reason::Behind, 0), (Reason::Waited, 7)] {
                    let note = Note {
                        route: &route,
                        reason,
                        level: Level::BoundedStaleness(Duration::from_millis(ms)),
                        waited: Duration::from_millis(waited),
                        enforced: Some(true),
                        session: None,
                        token: None,
                        relayed: &[],
                        set_cookie: false,
                        cookie: None,
                        slot: None,
                        removed: &[],
                        rewritten: &[],
                        by_link: false,
                        pinned: false,
                        anonymous: false,
                        lost: None,
                    };
                    for _ in 0..2 {
                        assert_eq!(routes.get(&note).unwrap(), super::route(&note).as_str());
                    }
                    assert!(routes.0.len() <= Routes::LIMIT);
                }
            }
        }
    }
}
