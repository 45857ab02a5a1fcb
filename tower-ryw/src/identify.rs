//! Stage 1: who asks, for which tenant, about which subjects, at which level, with which tokens?
//!
//! Pure: looks at the head of the request only.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use ryw_core::{Level, Marks, SessionId, SubjectKey, Tenant, Token, TokenError, wire};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    config::Config,
    policy::{Intent, RequestHead, Terms},
    present::Present,
    problem::Refusal,
};

static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) type Keys = SmallVec<[SubjectKey; 2]>;

/// What the request's tokens say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// What must be visible.
    pub(crate) marks: Marks,
    /// When the youngest token that says *pending* was issued, in seconds since 1970. A token that hands it on keeps
    /// this time: a write does not stay on its way for longer because its session asks again.
    pub(crate) pending_since: u32,
    /// Tokens that are not this service's, as they came: another service on this request's way may be able to check them.
    /// In place of a cookie's, the word for a token that is missing.
    pub(crate) foreign: Vec<HeaderValue>,
}

/// Who asks, and on what terms.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) tenant: Tenant,
    /// The session's name, where the client told it.
    pub(crate) session: Option<SessionId>,
    /// The session and further subjects, as the store knows them. The first is the session, when there is one.
    pub(crate) keys: Keys,
    /// Whether the first key is a session's: without one, a write starts a new session.
    pub(crate) has_session: bool,
    /// Whether a browser's cookie brought the session.
    pub(crate) by_cookie: bool,
    pub(crate) terms: Terms,
    /// What the request's tokens say must be visible.
    pub(crate) carried: Carried,
    /// The client says that it knows what was lost.
    pub(crate) acknowledges: bool,
    /// When the request came, where somebody wants to know how long it took.
    pub(crate) arrived: Option<Instant>,
}

impl Identity {
    /// A client that has told nothing about itself.
    pub(crate) fn nobody(tenant: Tenant, terms: Terms) -> Self {
        Self {
            tenant,
            session: None,
            keys: Keys::new(),
            has_session: false,
            by_cookie: false,
            terms,
            carried: Carried::default(),
            acknowledges: false,
            arrived: None,
        }
    }

    /// A read of which nothing has to be remembered, looked up or told.
    pub(crate) fn is_passthrough(&self) -> bool {
        self.keys.is_empty() && self.carried.marks.is_none() && is_plain_read(&self.terms)
    }
}

fn is_plain_read(terms: &Terms) -> bool {
    terms.intent == Intent::Read && matches!(terms.level, Level::Eventual | Level::ReadYourWrites)
}

/// The terms and the tenant of a request that is passed through, where its head shows at a glance that it is. What
/// [`identify`] finds out would be the same.
pub(crate) fn passthrough(config: &Config, head: RequestHead<'_>, present: Present) -> Option<(Terms, Tenant)> {
    if !present.tells_nothing() || config.subjects_of.is_some() {
        return None;
    }
    let terms = config.policy.terms(head, None);
    is_plain_read(&terms).then(|| (terms, tenant(config, head)))
}

fn tenant(config: &Config, head: RequestHead<'_>) -> Tenant {
    let told = head.extensions.get::<Tenant>().cloned();
    told.or_else(|| config.tenant_of.as_ref()?(head)).unwrap_or_default()
}

pub(crate) fn identify(config: &Config, head: RequestHead<'_>, present: Present) -> Result<Identity, Refusal> {
    let asked = if present.has(Present::CONSISTENCY_LEVEL) { asked_level(head)? } else { None };
    let terms = config.policy.terms(head, asked);
    let tenant = tenant(config, head);
    let session = if present.has(Present::SESSION_ID) { named_session(head)? } else { None };

    let mut keys = Keys::new();
    if let Some(session) = &session {
        // Newest key first. The older ones are for marks that were made before the newest key came into use.
        keys.extend(config.keys.iter().map(|key| key.session(&tenant, session)));
    }
    let mut carried = Carried::default();
    let by_cookie = present.may_bring_tokens() && read_tokens(config, head, present, &tenant, &mut keys, &mut carried);
    let has_session = !keys.is_empty();
    if let Some(subjects_of) = &config.subjects_of {
        for subject in subjects_of(head) {
            keys.extend(config.keys.iter().map(|key| key.subject(&tenant, &subject)));
        }
    }
    let acknowledges = present.has(Present::LOST)
        && head.headers.get(&wire::LOST).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"ack"));
    let arrived = config.observer.is_some().then(Instant::now);
    Ok(Identity { tenant, session, keys, has_session, by_cookie, terms, carried, acknowledges, arrived })
}

fn asked_level(head: RequestHead<'_>) -> Result<Option<Level>, Refusal> {
    let mut levels = head.headers.get_all(&wire::CONSISTENCY_LEVEL).iter();
    let Some(value) = levels.next() else { return Ok(None) };
    if levels.any(|other| other != value) {
        return Err(bad("X-Consistency-Level is given more than once, with different values: send one".into()));
    }
    let level = value.to_str().unwrap_or("(not ASCII)").parse();
    level.map(Some).map_err(|error| bad(format!("X-Consistency-Level: {error}")))
}

fn named_session(head: RequestHead<'_>) -> Result<Option<SessionId>, Refusal> {
    let mut names = head.headers.get_all(&wire::SESSION_ID).iter();
    let Some(value) = names.next() else { return Ok(None) };
    if names.any(|other| other != value) {
        return Err(bad(
            "X-Session-ID is given more than once, with different values: a request belongs to one session".into(),
        ));
    }
    SessionId::try_from(value).map(Some).map_err(|error| bad(format!("X-Session-ID: {error}")))
}

fn bad(detail: String) -> Refusal {
    Refusal::BadRequest { detail }
}

/// Joins all tokens of the request. Returns whether a cookie was among them.
///
/// A token that can't be believed is never an error: it makes the marks unknown, so a forger gains nothing and a user
/// loses nothing.
fn read_tokens(
    config: &Config,
    head: RequestHead<'_>,
    present: Present,
    tenant: &Tenant,
    keys: &mut Keys,
    carried: &mut Carried,
) -> bool {
    let mut count = 0;
    let all = |header, name| present.has(header).then(|| head.headers.get_all(name).iter()).into_iter().flatten();
    // `fetch` and proxies write a repeated field as one, separated by commas (RFC 9110, 5.3).
    let values = all(Present::TOKEN, &wire::TOKEN).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let values = values.map(<[u8]>::trim_ascii);
    let events = config.event_ids.then(|| all(Present::LAST_EVENT_ID, &LAST_EVENT_ID)).into_iter().flatten();
    let values = values.chain(events.filter_map(in_event_id));
    for text in values.chain(all(Present::BAGGAGE, &BAGGAGE).flat_map(in_baggage)) {
        count += 1;
        if let Some(session) = read_token(config, tenant, text, false, count, carried)
            && keys.is_empty()
        {
            keys.push(session);
        }
    }
    let Some(name) = config.cookie.name() else { return false };
    let mut by_cookie = false;
    for value in all(Present::COOKIE, &header::COOKIE) {
        for token in cookies(value.as_bytes(), name) {
            count += 1;
            by_cookie = true;
            if let Some(session) = read_token(config, tenant, token, true, count, carried)
                && !keys.contains(&session)
            {
                keys.push(session);
            }
        }
    }
    by_cookie
}

/// The values of all cookies of this name. Byte by byte: what else is in the header may be no text at all.
fn cookies<'a>(header: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    header.split(|byte| *byte == b';').filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?;
        Some(value.trim_ascii())
    })
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

fn read_token(
    config: &Config,
    tenant: &Tenant,
    given: &[u8],
    by_cookie: bool,
    count: usize,
    carried: &mut Carried,
) -> Option<SubjectKey> {
    if count > wire::MAX_TOKENS {
        carried.marks.join(&Marks::unknown());
        return None;
    }
    let text = std::str::from_utf8(given).map_err(|_| TokenError::Malformed);
    match text.and_then(|text| Token::open(&config.keys, tenant, text)) {
        Ok(token) => {
            let marks = aged_since(config, token.marks, token.issued_at);
            if marks.is_pending() {
                carried.pending_since = carried.pending_since.max(token.issued_at);
            }
            carried.marks.join(&marks);
            Some(token.session)
        }
        Err(error) => {
            config.token_refused(error);
            carried.marks.join(&Marks::unknown());
            let elsewhere =
                matches!(error, TokenError::BadSignature | TokenError::OtherTenant | TokenError::UnsupportedVersion);
            if elsewhere
                && text.is_ok_and(|text| text != wire::UNKNOWN_TOKEN)
                && let Ok(value) = HeaderValue::from_bytes(given)
            {
                // Whoever made a browser keep a cookie does not choose what reaches other services: they are told no more
                // than that something is missing.
                let value = if by_cookie { HeaderValue::from_static(wire::UNKNOWN_TOKEN) } else { value };
                if !carried.foreign.contains(&value) {
                    carried.foreign.push(value);
                }
            }
            None
        }
    }
}

/// What a token requires now, of those that this service has signed for this tenant.
pub(crate) fn open(config: &Config, tenant: &Tenant, text: &str) -> Result<Marks, TokenError> {
    let token = Token::open(&config.keys, tenant, text)?;
    Ok(aged_since(config, token.marks, token.issued_at))
}

/// What was known at this time, in seconds since 1970, now.
pub(crate) fn aged_since(config: &Config, marks: Marks, since: u32) -> Marks {
    aged(config, marks, config.clock.now().saturating_sub(Duration::from_secs(since.into())))
}

/// What a token says once it has grown old. Its *pending* is over after the window (issue times are whole seconds):
/// from then on nobody knows where the write landed, or, without positions, every replica is taken to have it.
fn aged(config: &Config, marks: Marks, age: Duration) -> Marks {
    if age > config.token_max_age {
        return Marks::unknown();
    }
    if !marks.is_pending() || age <= config.window.longest().saturating_add(Duration::from_secs(1)) {
        return marks;
    }
    let mut aged: Marks = marks.positions().iter().copied().map(ryw_core::Mark::At).collect();
    if marks.is_unknown() || config.topology.is_some() {
        aged.join(&Marks::unknown());
    }
    aged
}
