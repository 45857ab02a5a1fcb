//! The tokens of a request, wherever they are: fields, baggage, the id of an event, cookies, links.

use http::{HeaderName, HeaderValue, header};
use ryw_core::{
    Level, Marks, SubjectKey, Tenant, Token, TokenError,
    seeded::{Bug, is_on},
    wire,
};
use smallvec::SmallVec;

use super::{Carried, CookieName, Keys, Slot, age, faded, link_is_over, peeked};
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
    /// There are more than are looked at, and those are believed.
    pub(crate) crowded: bool,
    /// The slots of other sessions that this browser goes on as.
    pub(crate) kept: SmallVec<[(Slot, SubjectKey); 1]>,
    /// What one of them says may have to be found out anew by each request.
    pub(crate) unsettled: bool,
    /// Those that the next answer which sets a cookie takes away.
    pub(crate) removed: SmallVec<[CookieName; 2]>,
}

/// Cookies that one answer takes away, each of which is a hundred bytes of it.
const MAX_REMOVED: usize = 2 * wire::MAX_COOKIES;

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
/// A token that can't be believed is never an error. What it says is kept apart, and heeded where that costs nothing: a forger
/// gains nothing and a user loses nothing.
pub(super) struct Reader<'a> {
    config: &'a Config,
    tenant: &'a Tenant,
    level: Level,
    /// Tokens so far, and by what they came, but for cookies.
    read: SmallVec<[(&'a [u8], Carrier); 1]>,
    carried: Carried,
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a Config, tenant: &'a Tenant, level: Level) -> Self {
        Self { config, tenant, level, read: SmallVec::new(), carried: Carried::default() }
    }

    pub(super) fn finish(self) -> Carried {
        self.carried
    }

    pub(super) fn fields(&mut self, head: RequestHead<'a>, present: Present, keys: &mut Keys) {
        let all = |header, name| present.has(header).then(|| head.headers.get_all(name).iter()).into_iter().flatten();
        // `fetch` and proxies write a repeated field as one, separated by commas (RFC 9110, 5.3).
        let values = all(Present::TOKEN, &wire::TOKEN).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let values = values.map(<[u8]>::trim_ascii);
        let events = self.config.event_ids.then(|| all(Present::LAST_EVENT_ID, &LAST_EVENT_ID)).into_iter().flatten();
        let values = values.chain(events.filter_map(in_event_id));
        for text in values.chain(all(Present::BAGGAGE, &BAGGAGE).flat_map(in_baggage)) {
            if self.is_news(text, Carrier::Field)
                && let Ok(Some(session)) = self.token(text, Carrier::Field)
                && keys.is_empty()
            {
                keys.push(session);
            }
        }
    }

    pub(super) fn cookies(&mut self, head: RequestHead<'_>, keys: &mut Keys) -> Cookies {
        let mut found = Cookies::default();
        let own = CookieName::of(self.config, self.tenant);
        let (Some(base), Some(own)) = (self.config.cookie.name(), own) else { return found };
        let headers = head.headers.get_all(header::COOKIE).iter();
        let (mut cookies, mut others) = (SmallVec::<[_; 4]>::new(), SmallVec::<[_; 4]>::new());
        for (name, token) in headers.flat_map(|value| cookies_of(value.as_bytes(), base)) {
            if name.is_beside(own) { cookies.push((name.slot(), token)) } else { others.push((name, token)) }
        }
        self.others(others, &mut found);
        // The session's own first: it is the one that the browser goes on with.
        cookies.sort_by_key(|(slot, _)| slot.is_some());
        found.any = !cookies.is_empty();
        let is_crowd = cookies.len() > wire::MAX_COOKIES;
        if is_crowd {
            // The others are still too many then, and go with another answer: a response has no room for all of them.
            found.removed.extend(cookies.iter().filter_map(|(slot, _)| Some(own.with((*slot)?))).take(MAX_REMOVED));
        }
        let mut sessions: SmallVec<[(&[u8], SubjectKey); 4]> = SmallVec::new();
        // What others say is not these cookies' to settle.
        let hint = self.carried.hint.clone();
        for (slot, token) in cookies.into_iter().take(wire::MAX_COOKIES) {
            // A session that has just begun is in two.
            let known = sessions.iter().find(|(other, _)| *other == token).map(|(_, session)| *session);
            let session = match known.map_or_else(|| self.token(token, Carrier::Cookie), |session| Ok(Some(session))) {
                Ok(Some(session)) => session,
                Ok(None) => continue,
                Err(()) => {
                    found.dead = true;
                    let name = slot.map(|slot| own.with(slot));
                    found.removed.extend(name.filter(|name| !found.removed.contains(name)));
                    continue;
                }
            };
            sessions.push((token, session));
            if let Some(slot) = slot {
                found.kept.push((slot, session));
                found.unsettled |= self.carried.marks.is_unknown() || self.carried.hint != hint;
            }
            if !keys.contains(&session) {
                keys.push(session);
            }
        }
        // Of those that are not looked at nobody knows what they say. They are believed to say something if all others are.
        found.crowded = is_crowd && !found.dead;
        if is_crowd {
            let into = if found.dead { &mut self.carried.hint } else { &mut self.carried.marks };
            into.join(&Marks::unknown());
        }
        found
    }

    /// The cookies of other tenants. A handler may have written to this tenant from there, so what they say is heeded like
    /// that of a token which can't be believed, and what they don't know is theirs to find out.
    fn others(&mut self, others: SmallVec<[(CookieName, &[u8]); 4]>, found: &mut Cookies) {
        let peek = |token| Token::peek(std::str::from_utf8(token).ok()?).ok();
        let mut others: SmallVec<[_; 4]> = others.into_iter().map(|(name, token)| (peek(token), name)).collect();
        others.sort_by_key(|(said, _)| said.as_ref().map(|said| said.token.issued_at));
        // The browser need not keep those that nobody has come back to for the longest time.
        let surplus = others.len().saturating_sub(wire::MAX_COOKIES);
        found.removed.extend(others.iter().map(|(_, name)| *name).take(surplus.min(wire::MAX_COOKIES)));
        for said in others.into_iter().skip(surplus).filter_map(|(said, _)| said) {
            let marks = self.said(&said.token).without_unknown();
            self.carried.hint.join(&marks);
        }
    }

    /// The tokens in the URL. They are joined, and name nobody. Returns whether one of them is believed, so that whoever
    /// follows it is to see what it says.
    pub(super) fn link(&mut self, head: RequestHead<'a>) -> bool {
        let mut is_shown = false;
        for token in links(head) {
            if !self.is_news(token.as_bytes(), Carrier::Link) {
                continue;
            }
            // Links live for longer than keys: that it is over needs no key to be read, and to lie about it gains nothing.
            match Token::peek(token) {
                Ok(said) if link_is_over(self.config, said.token.issued_at) => self.over(),
                _ => {
                    // Whom it names is of no interest.
                    is_shown |= self.token(token.as_bytes(), Carrier::Link).is_ok();
                    self.carried.by_link = true;
                }
            }
        }
        is_shown
    }

    /// Whether this one is to be read: the same once more says the same. Beyond the limit nobody knows what they say.
    fn is_news(&mut self, token: &'a [u8], carrier: Carrier) -> bool {
        if self.read.contains(&(token, carrier)) {
            return false;
        }
        let has_room = self.read.len() < wire::MAX_TOKENS;
        if has_room {
            self.read.push((token, carrier));
        } else {
            self.carried.hint.join(&Marks::unknown());
        }
        has_room
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
                self.believe(&token, carrier);
                Ok(Some(token.session).filter(|session| *session != SubjectKey::NOBODY))
            }
            Err(error) => {
                self.config.token_refused(error);
                let said = text.map_or_else(|_| Marks::unknown(), |text| peeked(self.config, text));
                self.carried.hint.join(&said);
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

    fn believe(&mut self, token: &Token, carrier: Carrier) {
        let mut marks = self.said(token);
        if marks.is_pending() {
            self.carried.pending_since = self.carried.pending_since.max(token.issued_at);
        }
        if age(self.config, token.issued_at) > self.config.token_max_age {
            self.carried.hint.join(&marks);
            return;
        }
        if carrier == Carrier::Link && marks.is_unknown() {
            // One link is followed by many, each of whom would have it found out anew.
            marks = marks.without_unknown();
            self.carried.hint.join(&Marks::unknown());
        }
        if !is_on(Bug::StoreLossFailover) {
            self.carried.marks.join(&marks);
        }
    }

    /// What a token says by now, whether it is to be believed or not.
    fn said(&self, token: &Token) -> Marks {
        faded(self.config, token.marks.clone(), age(self.config, token.issued_at))
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
            self.carried.hint.join(&Marks::unknown());
        }
    }
}

/// The values of all cookies that are called so, in whatever tenant. Byte by byte: what else is in the header may be no text at all.
fn cookies_of<'a>(header: &'a [u8], base: &'static str) -> impl Iterator<Item = (CookieName, &'a [u8])> {
    header.split(|byte| *byte == b';').filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let end = pair.iter().position(|byte| *byte == b'=')?;
        Some((CookieName::parse(base, pair[..end].trim_ascii())?, pair[end + 1..].trim_ascii()))
    })
}

/// The tokens in the URL's query.
fn links<'a>(head: RequestHead<'a>) -> impl Iterator<Item = &'a str> {
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
