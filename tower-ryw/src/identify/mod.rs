//! Stage 1: who asks, for which tenant, about which subjects, at which level, with which tokens?
//!
//! Pure: looks at the head of the request only. `carriers` reads the tokens, wherever they are.

mod carriers;
mod cookie;

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};
use ryw_core::{Acknowledged, Level, Marks, SessionId, SubjectKey, Tenant, Token, TokenError, wire};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    config::Config,
    observe::shown,
    policy::{Intent, Plain, RequestHead, Terms},
    present::Present,
    problem::Refusal,
};

pub(crate) use carriers::Cookies;
use carriers::Reader;
pub(crate) use cookie::{CookieName, Slot};

pub(crate) type Keys = SmallVec<[SubjectKey; 2]>;

/// What the request's tokens say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// What must be visible.
    pub(crate) marks: Marks,
    /// What those say that can't be believed.
    pub(crate) hint: Marks,
    /// When the youngest token that says *pending* was issued, in seconds since 1970. A token that hands it on keeps
    /// this time: a write does not stay on its way for longer because its session asks again.
    pub(crate) pending_since: u32,
    /// Tokens that are not this service's, as they came: another service on this request's way may be able to check them.
    /// In place of a cookie's or a link's, the word for a token that is missing.
    pub(crate) foreign: Vec<HeaderValue>,
    /// A link that was shared says something.
    pub(crate) by_link: bool,
}

impl Carried {
    /// Whether they say nothing about what must be visible.
    pub(crate) fn is_none(&self) -> bool {
        self.marks.is_none() && self.hint.is_none()
    }
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
    /// What a browser has kept of the session.
    pub(crate) cookies: Cookies,
    pub(crate) terms: Terms,
    /// What the request's tokens say must be visible.
    pub(crate) carried: Carried,
    /// The client says that it knows what was lost.
    pub(crate) acknowledges: Option<Acknowledged>,
    /// When the request came, where somebody wants to know how long it took.
    pub(crate) arrived: Option<Instant>,
    /// Its path, where decisions are logged.
    pub(crate) path: Option<Arc<str>>,
}

impl Identity {
    /// A client that has told nothing about itself.
    pub(crate) fn nobody(tenant: Tenant, terms: Terms) -> Self {
        Self {
            tenant,
            session: None,
            keys: Keys::new(),
            has_session: false,
            cookies: Cookies::default(),
            terms,
            carried: Carried::default(),
            acknowledges: None,
            arrived: None,
            path: None,
        }
    }

    /// A read of which nothing has to be remembered, looked up or told.
    pub(crate) fn passthrough(&self) -> Option<Plain> {
        let brings_nothing = self.keys.is_empty() && self.carried.is_none() && self.carried.foreign.is_empty();
        if brings_nothing { Plain::of(&self.terms) } else { None }
    }
}

fn tenant(config: &Config, head: RequestHead<'_>) -> Tenant {
    let told = head.extensions.get::<Tenant>().cloned();
    told.or_else(|| config.tenant_of.as_ref()?(head)).unwrap_or_default()
}

/// Who a request is from.
#[expect(clippy::large_enum_variant, reason = "it is moved once, and boxes would allocate on each request")]
pub(crate) enum Caller {
    /// Nobody in particular, for a read of which nothing has to be remembered or told: its head shows that at a glance.
    Nobody {
        plain: Plain,
        tenant: Tenant,
    },
    Somebody(Identity),
}

/// `named`: what names the session first.
pub(crate) fn identify(
    config: &Config,
    head: RequestHead<'_>,
    present: Present,
    named: Option<&HeaderValue>,
) -> Result<Caller, Refusal> {
    if present.has(Present::CONNECTION) {
        end_to_end(head)?;
    }
    let asked = if present.has(Present::CONSISTENCY_LEVEL) { asked_level(head)? } else { None };
    let mut terms = config.policy.terms(head, asked);
    let tenant = tenant(config, head);
    let is_watched = config.observer.is_some() || config.decision_log.is_some();
    let tells_nothing =
        !is_watched && present.tells_nothing() && config.subjects_of.is_none() && !carriers::has_link(head);
    if tells_nothing && let Some(plain) = Plain::of(&terms) {
        return Ok(Caller::Nobody { plain, tenant });
    }
    let session = match named {
        Some(value) => Some(named_session(head, present, value)?),
        None => None,
    };

    let mut keys = Keys::new();
    if let Some(session) = &session {
        // Newest key first. The older ones are for marks that were made before the newest key came into use.
        for key in config.keys.iter() {
            keys.push(key.session(&tenant, session));
        }
    }
    let mut reader = Reader::new(config, &tenant, terms.level);
    if present.brings_fields() {
        reader.fields(head, present, &mut keys);
    }
    let cookies = if present.has(Present::COOKIE) { reader.cookies(head, &mut keys) } else { Cookies::default() };
    let is_shown = reader.link(head);
    let carried = reader.finish();
    if is_shown && terms.intent == Intent::Read {
        // Whoever shares a link means that it is seen. Nobody but this service can make one that says so.
        terms.level = terms.level.max(Level::ReadYourWrites.min(config.policy.maximum));
    }
    let has_session = !keys.is_empty();
    if let Some(subjects_of) = &config.subjects_of {
        for subject in subjects_of(head) {
            keys.extend(config.keys.iter().map(|key| key.subject(&tenant, &subject)));
        }
    }
    let said = present.has(Present::LOST).then(|| head.headers.get(&wire::LOST)).flatten();
    let acknowledges = said.and_then(Acknowledged::from_header);
    let arrived = config.observer.is_some().then(Instant::now);
    let path = config.decision_log.is_some().then(|| shown(head.uri.path()));
    let identity =
        Identity { tenant, session, keys, has_session, cookies, terms, carried, acknowledges, arrived, path };
    Ok(Caller::Somebody(identity))
}

/// `Connection` names what the next hop takes out: whoever names one of these wants a proxy to drop what it was told to add.
fn end_to_end(head: RequestHead<'_>) -> Result<(), Refusal> {
    let ours: [&HeaderName; 4] = [&wire::SESSION_ID, &wire::CONSISTENCY_LEVEL, &wire::TOKEN, &wire::LOST];
    for value in head.headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if let Some(name) = ours.iter().find(|name| option.eq_ignore_ascii_case(name.as_str().as_bytes())) {
                return Err(bad(format!("Connection names {name}, which is for the server and not for the next hop")));
            }
        }
    }
    Ok(())
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

fn named_session(head: RequestHead<'_>, present: Present, value: &HeaderValue) -> Result<SessionId, Refusal> {
    let all = || head.headers.get_all(&wire::SESSION_ID).iter();
    if present.has(Present::SESSION_IDS) && all().any(|other| other != value) {
        return Err(bad(
            "X-Session-ID is given more than once, with different values: a request belongs to one session".into(),
        ));
    }
    SessionId::try_from(value).map_err(|error| bad(format!("X-Session-ID: {error}")))
}

fn bad(detail: String) -> Refusal {
    Refusal::BadRequest { detail }
}

/// What a token requires now, of those that this service has signed for this tenant.
pub(crate) fn open(config: &Config, tenant: &Tenant, text: &str) -> Result<Marks, TokenError> {
    let token = Token::open(&config.keys, tenant, text)?;
    Ok(aged_since(config, token.marks, token.issued_at))
}

/// Whether a link that was made at this time, in seconds since 1970, says nothing any more.
fn link_is_over(config: &Config, since: u32) -> bool {
    age(config, since) > config.link_max_age
}

/// How long ago this was, in seconds since 1970.
fn age(config: &Config, since: u32) -> Duration {
    config.clock.now().saturating_sub(Duration::from_secs(since.into()))
}

/// What a token that can't be believed says by now.
pub(crate) fn peeked(config: &Config, token: &str) -> Marks {
    match Token::peek(token) {
        Ok(said) => faded(config, said.token.marks, age(config, said.token.issued_at)),
        Err(_) => Marks::unknown(),
    }
}

/// What was known at this time, in seconds since 1970, now.
pub(crate) fn aged_since(config: &Config, marks: Marks, since: u32) -> Marks {
    aged(config, marks, age(config, since))
}

fn aged(config: &Config, marks: Marks, age: Duration) -> Marks {
    if age > config.token_max_age { Marks::unknown() } else { faded(config, marks, age) }
}

/// What a token says after a while. Its *pending* is over after the window (issue times are whole seconds): from then on
/// nobody knows where the write landed, or, without positions, every replica is taken to have it.
fn faded(config: &Config, marks: Marks, age: Duration) -> Marks {
    if !marks.is_pending() || age <= config.window.longest().saturating_add(Duration::from_secs(1)) {
        return marks;
    }
    let mut aged: Marks = marks.positions().iter().copied().map(ryw_core::Mark::At).collect();
    if marks.is_unknown() || config.topology.is_some() {
        aged.join(&Marks::unknown());
    }
    aged
}

#[cfg(test)]
mod tests;
