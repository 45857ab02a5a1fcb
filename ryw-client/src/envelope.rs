//! A session in a bottle: for jobs, messages and files.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderValue};
use ryw_core::{Epoch, Lost, SessionId, wire};

use crate::{
    error::{EnvelopeError, EnvelopeErrorKind},
    session::{Issuer, MAX_HELD, Origin, State, TokenSet},
};

/// Longest text of an envelope or a saved session, in bytes.
pub const MAX_ENVELOPE_LEN: usize = 8 * 1024;

const VERSION: &str = "ryw1";
const UNSURE: &str = "~?";

/// What a job or a message has to carry, so that whoever takes it sees what its sender could see.
///
/// It is one line of visible ASCII without quotes, at most [`MAX_ENVELOPE_LEN`] long and typically 130 bytes; with the feature
/// `serde` it is that string in any format. It contains no secret: tokens are signed and name nobody. But it tells when its
/// session wrote, so it does not belong into logs.
///
/// ```
/// use ryw_client::{Envelope, Session};
///
/// # fn example(session: &Session, queue: &mut Vec<(String, String)>) -> Result<(), Box<dyn std::error::Error>> {
/// // The sender:
/// queue.push(("send-receipt:17".into(), session.envelope().to_string()));
///
/// // The worker, with a session of its own for each job:
/// let Some((job, envelope)) = queue.pop() else { return Ok(()) };
/// let session = Session::resume(&envelope.parse()?);
/// # Ok(()) }
/// ```
///
/// A queue that drops duplicates must not drop what they have to see: keep one of them, with the envelopes of all
/// [joined](Self::join).
#[derive(Clone, Default)]
pub struct Envelope {
    pub(crate) session: Option<SessionId>,
    pub(crate) tokens: TokenSet,
    /// A write went without an answer.
    pub(crate) unsure: bool,
}

/// Everything there is to keep of a [`Session`](crate::Session): an [`Envelope`], the host that it belongs to, and what is
/// to be said about a loss. Its text is like an envelope's.
#[derive(Clone, Default)]
pub struct SavedSession {
    pub(crate) state: State,
}

impl Envelope {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.session.is_none() && self.tokens.is_empty() && !self.unsure
    }

    /// What the request that is being served must be able to see so far, for a job that it leaves behind; empty outside of one
    /// and for a request that has nothing to carry. A write of the very request is in it once the data layer or the handler has
    /// told its position, and makes the job's session *unknown* before that.
    ///
    /// ```
    /// use ryw_client::Envelope;
    ///
    /// # async fn push(_: &str, _: String) {}
    /// async fn order() {
    ///     // … the order is saved …
    ///     push("send-receipt:17", Envelope::current().to_string()).await;
    /// }
    /// ```
    #[cfg(feature = "server")]
    #[cfg_attr(docsrs, doc(cfg(feature = "server")))]
    #[must_use]
    pub fn current() -> Self {
        let Some(context) = tower_ryw::RywContext::current() else { return Self::default() };
        let mut envelope = Self { session: context.session().cloned(), ..Self::default() };
        for token in context.tokens() {
            if token == wire::UNKNOWN_TOKEN {
                envelope.unsure = true;
            } else {
                envelope.tokens.add(&token, &[]);
            }
        }
        envelope
    }

    /// What a [shared link](https://docs.rs/tower-ryw/latest/tower_ryw/struct.RywContext.html#method.share_link) says: for the
    /// receiver of a webhook, or of a message with a URL in it, that goes on with requests of its own. Empty when the URL has
    /// no token. Servers ignore it once it is too old.
    ///
    /// ```
    /// use ryw_client::{Envelope, Session};
    ///
    /// let session = Session::resume(&Envelope::of_link("https://notes.example/notes/7"));
    /// assert!(session.is_empty());
    /// ```
    #[must_use]
    pub fn of_link(url: &str) -> Self {
        let mut envelope = Self::default();
        let url = url.split('#').next().unwrap_or_default();
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for parameter in query.split('&').take(wire::MAX_TOKENS) {
            let value = parameter.strip_prefix(wire::LINK_PARAMETER).and_then(|value| value.strip_prefix('='));
            if let Some(token) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                envelope.tokens.add(&token, &[]);
            }
        }
        envelope
    }

    /// Adds what another job's envelope says. The order makes no difference to what must be seen; of two sessions' names
    /// the first stays.
    pub fn join(&mut self, other: &Self) {
        self.session = self.session.take().or_else(|| other.session.clone());
        self.tokens.join(&other.tokens);
        self.unsure |= other.unsure;
    }

    /// The request headers that say the same to a server, for messages that are requests themselves.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(session) = &self.session {
            headers.insert(&wire::SESSION_ID, session.header_value().clone());
        }
        let mut state = State::default();
        state.join(self);
        for value in state.outgoing().tokens {
            headers.append(&wire::TOKEN, value);
        }
        headers
    }
}

impl State {
    pub(crate) fn join(&mut self, envelope: &Envelope) -> bool {
        let named = self.id.is_none() && envelope.session.is_some();
        if named {
            self.id.clone_from(&envelope.session);
        }
        let unsure = envelope.unsure && self.unsure == 0 && self.doubt();
        let learned = self.tokens.join(&envelope.tokens);
        if learned {
            // What the sender has lost was not among what the caller acknowledges: a server that heard both at once would take it
            // for acknowledged.
            self.acknowledged = None;
        }
        learned | named | unsure
    }

    pub(crate) fn envelope(&self) -> Envelope {
        Envelope { session: self.id.clone(), tokens: self.tokens.clone(), unsure: self.unsure > 0 }
    }

    pub(crate) fn restore(&mut self, saved: &Self) -> bool {
        let Self { home, lost, acknowledged, .. } = saved;
        let is_new = self.tokens.is_empty();
        let mut changed = self.join(&saved.envelope());
        if self.home.is_none() && home.is_some() {
            self.home.clone_from(home);
            changed = true;
        }
        // A loss that is known here is no news.
        if *lost > self.lost && *lost > self.acknowledged {
            self.lost = *lost;
            changed = true;
        }
        // It does not cover what only this session has.
        if is_new && self.lost.is_none() && *acknowledged > self.acknowledged {
            self.acknowledged = *acknowledged;
            changed = true;
        }
        changed
    }
}

/// `ryw1;<session>;<token>.<token>.~<issuer>`: none of the separators is in what they separate.
impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION};{};", self.session.as_ref().map_or("", SessionId::as_str))?;
        let mut separator = "";
        for token in self.tokens.texts().filter_map(|token| token.to_str().ok()) {
            write!(f, "{separator}{token}")?;
            separator = ".";
        }
        for issuer in self.tokens.dropped() {
            write!(f, "{separator}~")?;
            if let Some(Issuer { key, tenant }) = issuer {
                write!(f, "{key:02x}{:016x}", u64::from_be_bytes(*tenant))?;
            }
            separator = ".";
        }
        if self.unsure {
            write!(f, "{separator}{UNSURE}")?;
        }
        Ok(())
    }
}

impl FromStr for Envelope {
    type Err = EnvelopeError;

    /// # Errors
    /// [`EnvelopeError`]. A token that is damaged is none: what it said is *unknown* then.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_ENVELOPE_LEN {
            return Err(EnvelopeError::new(EnvelopeErrorKind::TooLong));
        }
        let malformed = || EnvelopeError::new(EnvelopeErrorKind::Malformed);
        let mut parts = text.split(';');
        match parts.next() {
            Some(VERSION) => {}
            Some(other) if other.starts_with("ryw") => {
                return Err(EnvelopeError::new(EnvelopeErrorKind::UnsupportedVersion));
            }
            _ => return Err(malformed()),
        }
        let (Some(session), Some(tokens), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let session = match session {
            "" => None,
            name => Some(name.parse().map_err(EnvelopeError::malformed)?),
        };
        let (mut set, mut unsure) = (TokenSet::default(), false);
        for (index, part) in tokens.split('.').filter(|part| !part.is_empty()).enumerate() {
            if part == UNSURE {
                unsure = true;
                continue;
            }
            let understood = index < 2 * MAX_HELD + 2 && add(&mut set, part);
            if !understood {
                set.drop_of(None);
            }
        }
        Ok(Self { session, tokens: set, unsure })
    }
}

fn add(set: &mut TokenSet, part: &str) -> bool {
    match part.strip_prefix('~') {
        Some(issuer) if issuer.len() == 18 && issuer.is_ascii() => {
            let (key, tenant) = issuer.split_at(2);
            let (Ok(key), Ok(tenant)) = (u8::from_str_radix(key, 16), u64::from_str_radix(tenant, 16)) else {
                return false;
            };
            set.drop_of(Some(Issuer { key, tenant: tenant.to_be_bytes() }));
            true
        }
        Some(_) => false,
        None => match HeaderValue::from_str(part) {
            Ok(value) => set.add(&value, &[]) || set.texts().any(|text| *text == value),
            Err(_) => false,
        },
    }
}

/// An envelope, and after it `;<home>;<epoch>-<was>;<epoch>-<was>`, the latter for what was lost and acknowledged.
impl fmt::Display for SavedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { home, lost, acknowledged, .. } = &self.state;
        write!(f, "{};{}", self.state.envelope(), home.as_deref().unwrap_or_default())?;
        for lost in [lost, acknowledged] {
            f.write_str(";")?;
            if let Some(Lost { epoch, was }) = lost {
                write!(f, "{}-{}", epoch.get(), was.get())?;
            }
        }
        Ok(())
    }
}

impl FromStr for SavedSession {
    type Err = EnvelopeError;

    /// # Errors
    /// [`EnvelopeError`], as for an [`Envelope`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_ENVELOPE_LEN {
            return Err(EnvelopeError::new(EnvelopeErrorKind::TooLong));
        }
        let malformed = || EnvelopeError::new(EnvelopeErrorKind::Malformed);
        let mut parts = text.rsplitn(4, ';');
        let (acknowledged, lost, home, envelope) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(home), Some(envelope)) = (home, envelope) else { return Err(malformed()) };
        let mut state = State::default();
        state.join(&envelope.parse()?);
        let loss = |text: Option<&str>| match text.unwrap_or_default() {
            "" => Ok(None),
            text => parse_loss(text).map(Some).ok_or_else(malformed),
        };
        (state.lost, state.acknowledged) = (loss(lost)?, loss(acknowledged)?);
        // What no host is called would make the session nobody's for ever.
        if !home.is_empty() && !Origin::is(home) {
            return Err(malformed());
        }
        state.home = (!home.is_empty()).then(|| home.into());
        Ok(Self { state })
    }
}

fn parse_loss(text: &str) -> Option<Lost> {
    let (epoch, was) = text.split_once('-')?;
    Some(Lost { epoch: Epoch::new(epoch.parse().ok()?), was: Epoch::new(was.parse().ok()?) })
}

macro_rules! opaque {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        }

        #[cfg(feature = "serde")]
        #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "serde")]
        #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

opaque!(Envelope);
opaque!(SavedSession);
