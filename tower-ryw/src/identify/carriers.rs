//! The tokens of a request, wherever they are: fields, baggage, the id of an event, cookies, links.

use http::{HeaderName, HeaderValue, header};
use ryw_core::{
    Level, Marks, SubjectKey, Tenant, Token, TokenError,
    seeded::{Bug, is_on},
    wire,
};
use smallvec::SmallVec;

use super::{Carried, Keys, aged_since, link_is_over};
use crate::{config::Config, policy::RequestHead, present::Present};

static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The cookies of the session: one that every answer to it replaces, and one for each session that was begun for this browser.
///
/// Of two answers to first writes that were made at once, each begins a session, and the later one takes the first cookie.
/// The other session's cookie stays, so that the browser goes on as both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cookies {
    /// There is one.
    pub(crate) any: bool,
    /// One of them can't be believed.
    pub(crate) dead: bool,
    /// There are more than are looked at.
    pub(crate) crowded: bool,
    /// The slots of other sessions that this browser goes on as.
    pub(crate) kept: SmallVec<[(Slot, SubjectKey); 1]>,
    /// What one of them says may have to be found out anew by each request.
    pub(crate) unsettled: bool,
    /// The slots that the next answer which sets a cookie takes away.
    pub(crate) removed: SmallVec<[Slot; 2]>,
}

/// Cookies that one answer takes away, each of which is a hundred bytes of it.
const MAX_REMOVED: usize = 2 * wire::MAX_COOKIES;

/// Tells the cookies apart in which sessions were begun: the start of the session's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// By what a token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    /// A field that only the client itself can set.
    Field,
    Cookie,
    /// A URL, which somebody else may have made.
    Link,
}

/// Joins all tokens of a request.
///
/// A token that can't be believed is never an error: it makes the marks unknown, so a forger gains nothing and a user
/// loses nothing.
pub(super) struct Reader<'a> {
    config: &'a Config,
    tenant: &'a Tenant,
    level: Level,
    /// Tokens so far, but for cookies.
    count: usize,
    carried: Carried,
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a Config, tenant: &'a Tenant, level: Level) -> Self {
        Self { config, tenant, level, count: 0, carried: Carried::default() }
    }

    pub(super) fn finish(self) -> Carried {
        self.carried
    }

    pub(super) fn fields(&mut self, head: RequestHead<'_>, present: Present, keys: &mut Keys) {
        let all = |header, name| present.has(header).then(|| head.headers.get_all(name).iter()).into_iter().flatten();
        // `fetch` and proxies write a repeated field as one, separated by commas (RFC 9110, 5.3).
        let values = all(Present::TOKEN, &wire::TOKEN).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let values = values.map(<[u8]>::trim_ascii);
        let events = self.config.event_ids.then(|| all(Present::LAST_EVENT_ID, &LAST_EVENT_ID)).into_iter().flatten();
        let values = values.chain(events.filter_map(in_event_id));
        for text in values.chain(all(Present::BAGGAGE, &BAGGAGE).flat_map(in_baggage)) {
            self.count += 1;
            if self.count > wire::MAX_TOKENS {
                self.carried.marks.join(&Marks::unknown());
            } else if let Ok(Some(session)) = self.token(text, Carrier::Field)
                && keys.is_empty()
            {
                keys.push(session);
            }
        }
    }

    pub(super) fn cookies(&mut self, head: RequestHead<'_>, keys: &mut Keys) -> Cookies {
        let mut found = Cookies::default();
        let Some(name) = self.config.cookie.name() else { return found };
        let headers = head.headers.get_all(header::COOKIE).iter();
        let mut cookies: SmallVec<[_; 4]> = headers.flat_map(|value| cookies(value.as_bytes(), name)).collect();
        // The session's own first: it is the one that the browser goes on with.
        cookies.sort_by_key(|(slot, _)| slot.is_some());
        found.any = !cookies.is_empty();
        found.crowded = cookies.len() > wire::MAX_COOKIES;
        if found.crowded {
            self.carried.marks.join(&Marks::unknown());
            // The others are still too many then, and go with another answer: a response has no room for all of them.
            found.removed.extend(cookies.iter().filter_map(|(slot, _)| *slot).take(MAX_REMOVED));
        }
        let mut sessions: SmallVec<[(&[u8], SubjectKey); 4]> = SmallVec::new();
        for (slot, token) in cookies.into_iter().take(wire::MAX_COOKIES) {
            // A session that has just begun is in two.
            let known = sessions.iter().find(|(other, _)| *other == token).map(|(_, session)| *session);
            let session = match known.map_or_else(|| self.token(token, Carrier::Cookie), |session| Ok(Some(session))) {
                Ok(Some(session)) => session,
                Ok(None) => continue,
                Err(()) => {
                    found.dead = true;
                    found.removed.extend(slot.filter(|slot| !found.removed.contains(slot)));
                    continue;
                }
            };
            sessions.push((token, session));
            if let Some(slot) = slot {
                found.kept.push((slot, session));
                found.unsettled |= self.carried.marks.is_unknown();
            }
            if !keys.contains(&session) {
                keys.push(session);
            }
        }
        found
    }

    /// The tokens in the URL. They are joined, and name nobody.
    pub(super) fn link(&mut self, head: RequestHead<'_>) {
        for token in links(head) {
            self.count += 1;
            if self.count > wire::MAX_TOKENS {
                self.carried.marks.join(&Marks::unknown());
                return;
            }
            // Links live for longer than keys: that it is over needs no key to be read, and to lie about it gains nothing.
            match Token::peek(token) {
                Ok(said) if link_is_over(self.config, said.token.issued_at) => self.over(),
                _ => {
                    // Whom it names is of no interest.
                    let _ = self.token(token.as_bytes(), Carrier::Link);
                    self.carried.by_link = true;
                }
            }
        }
    }

    /// Joins one token, and tells whose it is, if it says so. `Err` when it can't be believed.
    fn token(&mut self, given: &[u8], carrier: Carrier) -> Result<Option<SubjectKey>, ()> {
        let text = std::str::from_utf8(given).map_err(|_| TokenError::Malformed);
        match text.and_then(|text| Token::open(&self.config.keys, self.tenant, text)) {
            Ok(token) if token.is_shared() && link_is_over(self.config, token.issued_at) => {
                self.over();
                Ok(None)
            }
            Ok(token) => {
                let marks = aged_since(self.config, token.marks, token.issued_at);
                if marks.is_pending() {
                    self.carried.pending_since = self.carried.pending_since.max(token.issued_at);
                }
                if !is_on(Bug::StoreLossFailover) {
                    self.carried.marks.join(&marks);
                }
                Ok(Some(token.session).filter(|session| *session != SubjectKey::NOBODY))
            }
            Err(error) => {
                self.config.token_refused(error);
                self.carried.marks.join(&Marks::unknown());
                let elsewhere = matches!(
                    error,
                    TokenError::BadSignature | TokenError::OtherTenant | TokenError::UnsupportedVersion
                );
                if elsewhere
                    && text.is_ok_and(|text| text != wire::UNKNOWN_TOKEN)
                    && let Ok(value) = HeaderValue::from_bytes(given)
                {
                    self.foreign(value, carrier);
                }
                Err(())
            }
        }
    }

    /// Another service may be able to check it.
    fn foreign(&mut self, value: HeaderValue, carrier: Carrier) {
        // Whoever made a browser keep a cookie or follow a link does not choose what reaches other services: they are told no
        // more than that something is missing.
        let value = match carrier {
            Carrier::Field => value,
            Carrier::Cookie | Carrier::Link => HeaderValue::from_static(wire::UNKNOWN_TOKEN),
        };
        if !self.carried.foreign.contains(&value) {
            self.carried.foreign.push(value);
        }
    }

    /// A link that is too old says nothing, and who asks for more than to see one's own writes is told nothing less.
    fn over(&mut self) {
        if self.level > Level::ReadYourWrites {
            self.carried.marks.join(&Marks::unknown());
        }
    }
}

impl Slot {
    pub(crate) fn of(session: &SubjectKey) -> Self {
        let [a, b, c, d, ..] = *session.as_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    /// The cookie's name, where the session's is `name`.
    pub(crate) fn name(self, name: &str) -> String {
        format!("{name}-{:08x}", self.0)
    }

    /// Only what [`name`](Self::name) has written.
    fn parse(digits: &[u8]) -> Option<Self> {
        let digits = digits.strip_prefix(b"-").filter(|digits| digits.len() == 8)?;
        let is_ours = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_ours)?;
        u32::from_str_radix(digits, 16).ok().map(Self)
    }
}

/// The values of all cookies of this name, and of those with a slot behind it. Byte by byte: what else is in the header may be
/// no text at all.
fn cookies<'a>(header: &'a [u8], name: &'a str) -> impl Iterator<Item = (Option<Slot>, &'a [u8])> {
    header.split(|byte| *byte == b';').filter_map(move |pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b'=')?;
        let (slot, value) = (rest[..end].trim_ascii(), rest[end + 1..].trim_ascii());
        let slot = if slot.is_empty() { None } else { Some(Slot::parse(slot)?) };
        Some((slot, value))
    })
}

/// The tokens in the URL's query.
fn links(head: RequestHead<'_>) -> impl Iterator<Item = &str> {
    let parameters = head.uri.query().into_iter().flat_map(|query| query.split('&'));
    parameters.filter_map(|parameter| parameter.strip_prefix(wire::LINK_PARAMETER)?.strip_prefix('='))
}

pub(super) fn has_link(head: RequestHead<'_>) -> bool {
    links(head).next().is_some()
}

/// The token in the id of an event: behind the service's own id and a semicolon.
fn in_event_id(header: &HeaderValue) -> Option<&[u8]> {
    header.as_bytes().rsplit(|byte| *byte == b';').next().map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// The tokens in W3C baggage: one member, in which dots separate them.
fn in_baggage(header: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = header.as_bytes().split(|byte| *byte == b',').filter_map(|member| {
        // What follows a semicolon are properties of the member.
        let member = member.split(|byte| *byte == b';').next()?;
        let value = member.trim_ascii().strip_prefix(wire::BAGGAGE_MEMBER.as_bytes())?.trim_ascii_start();
        Some(value.strip_prefix(b"=")?.trim_ascii())
    });
    members.flat_map(|value| value.split(|byte| *byte == b'.'))
}
