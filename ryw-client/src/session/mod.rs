//! A caller's session: what it has learned from responses, for its next requests to carry.

mod builder;
mod hosts;
mod state;
mod tokens;

use std::{fmt, sync::Arc};

use http::HeaderMap;
#[cfg(feature = "server")]
use http::HeaderValue;
use parking_lot::Mutex;
#[cfg(feature = "server")]
use ryw_core::{Acknowledged, Epoch};
use ryw_core::{Lost, SessionId, wire};

pub use builder::SessionBuilder;
pub(crate) use hosts::{Destination, HostRule, Origin};
pub(crate) use state::{Sent, State, Trust, speaks};
pub(crate) use tokens::{Issuer, MAX_HELD, TokenSet};

use crate::envelope::{Envelope, SavedSession};

pub(crate) type Supplier = dyn Fn() -> Option<SavedSession> + Send + Sync;
pub(crate) type Consumer = dyn Fn(&SavedSession) + Send + Sync;

/// What a caller must be able to see, carried from responses to requests. Cheap to clone; all clones are one session.
///
/// A [`RywClientLayer`](crate::RywClientLayer) does the carrying. Requests may run concurrently: what their responses
/// say is joined, in whatever order they arrive, and nothing replaces what it does not contain. Error responses count
/// as well: a write that failed may have happened.
///
/// # To whom it is told
///
/// Without [rules](SessionBuilder::send_to) a session belongs to the first host (scheme, name and port) that answers
/// with a token, or, when it has something to carry from the start, to the first that is called. No other host is
/// told, and nothing is learned from others; with a rule, the rules alone count. A request whose URI names no host
/// goes to wherever the service under the layer is connected, as with a tonic channel: putting the layer there says
/// that the session may be told to it.
///
/// # What it does not know
///
/// A write that went without an answer (the connection broke, the caller gave up, a proxy answered in the server's place) may
/// have happened. From then on requests carry the word `unknown`, which makes servers find out themselves what the session must
/// see, until one has answered to that with a token.
///
/// # How much it keeps
///
/// A client has no key to make one token out of two, so it keeps those that are not contained in others, at most 7,
/// each at most 512 characters. When there are more, the oldest goes, and requests carry the word `unknown`
/// beside the others, which makes servers find out themselves what the session must see, until the token's issuer has
/// answered to that. Use one session for services that share their signing keys and for one tenant: a server takes a
/// token that it can't check for `unknown` too.
///
/// ```
/// use ryw_client::Session;
///
/// let session = Session::builder().send_to("*.internal.example").send_to("https://api.example.com").build()?;
/// # Ok::<(), ryw_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    rules: Vec<HostRule>,
    supplier: Option<Box<Supplier>>,
    consumer: Option<Box<Consumer>>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    state: State,
    /// How often the state has changed, and at which of these times it was last given to the consumer.
    version: u64,
    told: u64,
    /// Somebody is in the consumer, and looks again when done.
    telling: bool,
    /// A foreign server that knows of sessions has been warned about.
    warned: bool,
}

impl Session {
    /// An empty session, for the first host that answers with a token.
    #[must_use]
    pub fn new() -> Self {
        SessionBuilder::new().start(Vec::new())
    }

    /// Settings for a session.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::new()
    }

    /// A new session that must see what `envelope` says: for the worker that has taken a job. Give each job its own.
    ///
    /// It belongs to the first host that it calls; for several, use [`SessionBuilder::resume`] with rules.
    #[must_use]
    pub fn resume(envelope: &Envelope) -> Self {
        SessionBuilder::new().resume(envelope).start(Vec::new())
    }

    /// The session's name: given to the builder, or by a server.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.0.shared.lock().state.id.clone()
    }

    /// Whether there is nothing to carry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.shared.lock().state.is_empty()
    }

    /// An acknowledged write of this session that did not survive a failover, until
    /// [`acknowledge_lost`](Self::acknowledge_lost). Servers that keep the session at SESSION or above refuse its writes
    /// until then, with 409.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.0.shared.lock().state.lost
    }

    /// The caller knows what was lost, and goes on from what is there. The next requests say so until a server has heard
    /// it. Returns whether there was anything to acknowledge.
    pub fn acknowledge_lost(&self) -> bool {
        self.change(State::acknowledge)
    }

    /// What to put into a job or a message, so that whoever takes it sees what this session must see.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        let shared = self.0.shared.lock();
        shared.state.envelope()
    }

    /// Adds what `envelope` says to what this session must see; of two names the session's own stays.
    pub fn join(&self, envelope: &Envelope) {
        self.change(|state| state.join(envelope));
    }

    /// Everything there is to keep of the session, see [`SavedSession`].
    #[must_use]
    pub fn save(&self) -> SavedSession {
        SavedSession { state: self.0.shared.lock().state.clone() }
    }

    /// Adds what was saved, by this session or by another. Nothing that is known already is forgotten.
    pub fn restore(&self, saved: &SavedSession) {
        self.change(|state| state.restore(&saved.state));
    }

    /// A session that may be told to the same hosts, and without rules to none, for one request of a server.
    #[cfg(feature = "server")]
    pub(crate) fn within(
        &self,
        id: Option<SessionId>,
        tokens: &[HeaderValue],
        acknowledges: Option<Acknowledged>,
    ) -> Self {
        // An origin that no request has.
        let mut state = State { id, home: Some("nowhere".into()), ..State::default() };
        // What exactly the client knows it has not said: whatever is told in spite of that is news.
        state.handed_on = acknowledges;
        state.acknowledged = acknowledges.map(|_| Lost { epoch: Epoch::new(0), was: Epoch::new(0) });
        for token in tokens {
            if token == wire::UNKNOWN_TOKEN {
                state.doubt();
            } else {
                state.tokens.add(token, &[]);
            }
        }
        let shared = Mutex::new(Shared { state, ..Shared::default() });
        Self(Arc::new(Inner { rules: self.0.rules.clone(), supplier: None, consumer: None, shared }))
    }

    /// The tokens that it has now.
    #[cfg(feature = "server")]
    pub(crate) fn tokens(&self) -> Vec<HeaderValue> {
        self.0.shared.lock().state.tokens.texts().cloned().collect()
    }

    /// The number of the last write that went without an answer, and of which no server has been told yet.
    #[cfg(feature = "server")]
    pub(crate) fn unsure(&self) -> u32 {
        self.0.shared.lock().state.unsure
    }

    /// Writes what a request to this destination carries into its headers, and takes out what it must not carry.
    pub(crate) fn attach(&self, to: &Destination, headers: &mut HeaderMap) -> Option<Sent> {
        if let Some(saved) = self.0.supplier.as_ref().and_then(|supplier| supplier()) {
            self.restore(&saved);
        }
        let sent = {
            let mut shared = self.0.shared.lock();
            match (shared.state.trust(&self.0.rules, to), to) {
                (Trust::Foreign, _) => None,
                // There is something to tell, so it is this host's.
                (Trust::Open, Destination::Host(origin)) if !shared.state.is_empty() => {
                    shared.state.settle_in(origin);
                    Some(shared.state.outgoing())
                }
                _ => Some(shared.state.outgoing()),
            }
        };
        let Some(sent) = sent else {
            self.withhold(headers);
            return None;
        };
        if let Some(id) = &sent.id {
            headers.entry(&wire::SESSION_ID).or_insert_with(|| id.header_value().clone());
        }
        for token in &sent.tokens {
            headers.append(&wire::TOKEN, token.clone());
        }
        if let Some(known) = sent.acknowledges {
            headers.insert(&wire::LOST, known.header_value());
        }
        Some(sent)
    }

    /// Joins what the response to a request that carried `sent` says.
    pub(crate) fn learn(&self, from: &Destination, sent: &Sent, headers: &HeaderMap) {
        if headers.keys().all(|name| *name != wire::TOKEN && *name != wire::CONSISTENCY_ENFORCED && *name != wire::LOST)
        {
            return;
        }
        self.change(|state| {
            match (state.trust(&self.0.rules, from), from) {
                (Trust::Foreign, _) => return false,
                (Trust::Open, Destination::Host(origin)) if headers.contains_key(&wire::TOKEN) => {
                    state.settle_in(origin);
                }
                // A name without a token is no reason to belong to somebody.
                (Trust::Open, _) => return false,
                (Trust::Ours, _) => {}
            }
            state.learn(sent, headers)
        });
    }

    /// A write to this destination went without an answer.
    pub(crate) fn doubt(&self, to: &Destination) {
        self.change(|state| state.trust(&self.0.rules, to) == Trust::Ours && state.doubt());
    }

    /// A host that is not the session's has answered as one that knows of sessions.
    pub(crate) fn foreign(&self, headers: &HeaderMap) {
        if headers.contains_key(&wire::TOKEN) && !std::mem::replace(&mut self.0.shared.lock().warned, true) {
            tracing::warn!("a host that the session is not told to answers with tokens: name it with `send_to`");
        }
    }

    /// Takes out what a redirect or a copied request brought along.
    fn withhold(&self, headers: &mut HeaderMap) {
        headers.remove(&wire::TOKEN);
        let id = self.id();
        if id.is_some_and(|id| headers.get(&wire::SESSION_ID) == Some(id.header_value())) {
            headers.remove(&wire::SESSION_ID);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> bool {
        let changed = {
            let mut shared = self.0.shared.lock();
            let changed = change(&mut shared.state);
            shared.version += u64::from(changed);
            changed
        };
        if changed {
            self.tell();
        }
        changed
    }

    /// Gives the newest state to the consumer: one call at a time, never an older state after a newer one.
    fn tell(&self) {
        let Some(consumer) = &self.0.consumer else { return };
        loop {
            let saved = {
                let mut shared = self.0.shared.lock();
                if shared.telling || shared.told == shared.version {
                    return;
                }
                (shared.telling, shared.told) = (true, shared.version);
                SavedSession { state: shared.state.clone() }
            };
            // Also when the consumer panics.
            let _told = Telling(&self.0.shared);
            consumer(&saved);
        }
    }
}

struct Telling<'a>(&'a Mutex<Shared>);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.lock().telling = false;
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.0.shared.lock();
        let tokens = shared.state.tokens.texts().count();
        f.debug_struct("Session").field("tokens", &tokens).field("lost", &shared.state.lost).finish_non_exhaustive()
    }
}
