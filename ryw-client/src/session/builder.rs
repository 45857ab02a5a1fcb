//! How a session is made.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use ryw_core::SessionId;

use super::{Consumer, HostRule, Inner, Session, Shared, State, Supplier};
use crate::{
    envelope::{Envelope, SavedSession},
    error::ConfigError,
};

/// Settings of a [`Session`]; [`build`](Self::build) checks them.
#[must_use]
pub struct SessionBuilder {
    rules: Vec<String>,
    state: State,
    supplier: Option<Box<Supplier>>,
    consumer: Option<Box<Consumer>>,
}

impl SessionBuilder {
    pub(super) fn new() -> Self {
        Self { rules: Vec::new(), state: State::default(), supplier: None, consumer: None }
    }

    /// The session may be told to this host: `api.example.com` or `*.example.com` (all hosts below, not
    /// `example.com` itself), with `https://` or `http://` before it if only that is meant, and with a port after it if
    /// only that is meant. A redirect from https to http is followed without the session, unless a rule says `http://`. May be
    /// called repeatedly. Default: the first host that answers with a token.
    pub fn send_to(mut self, host: impl Into<String>) -> Self {
        self.rules.push(host.into());
        self
    }

    /// The session's name. Default: the server gives one.
    pub fn id(mut self, id: SessionId) -> Self {
        self.state.id = Some(id);
        self
    }

    /// The session must see what `envelope` says. May be called repeatedly. Default: nothing.
    pub fn resume(mut self, envelope: &Envelope) -> Self {
        self.state.join(envelope);
        self
    }

    /// The session goes on from what was saved. May be called repeatedly. Default: an empty session.
    pub fn restore(mut self, saved: &SavedSession) -> Self {
        self.state.restore(&saved.state);
        self
    }

    /// Asked before each request for more that the session must see, for instance what other sessions of the same user
    /// have saved; it is joined. It must not block: it runs where the request is made. Default: none.
    pub fn supplier(mut self, supplier: impl Fn() -> Option<SavedSession> + Send + Sync + 'static) -> Self {
        self.supplier = Some(Box::new(supplier));
        self
    }

    /// Given the session whenever it has changed, to keep it. Calls come one at a time and never with an older state after a
    /// newer one; of changes that come quickly only the last may be seen. It must not block: it runs where the response is
    /// received, before the caller has it. Default: none.
    pub fn consumer(mut self, consumer: impl Fn(&SavedSession) + Send + Sync + 'static) -> Self {
        self.consumer = Some(Box::new(consumer));
        self
    }

    /// The session.
    ///
    /// # Errors
    /// [`ConfigErrorKind::Host`](crate::ConfigErrorKind::Host) for a rule that names no host.
    pub fn build(mut self) -> Result<Session, ConfigError> {
        let rules = std::mem::take(&mut self.rules);
        let rules = rules.iter().map(|rule| rule.parse()).collect::<Result<Vec<HostRule>, _>>()?;
        Ok(self.start(rules))
    }

    pub(super) fn start(self, rules: Vec<HostRule>) -> Session {
        let Self { rules: _, state, supplier, consumer } = self;
        let shared = Mutex::new(Shared { state, ..Shared::default() });
        Session(Arc::new(Inner { rules, supplier, consumer, shared }))
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder").field("rules", &self.rules).finish_non_exhaustive()
    }
}
