//! The layer for services that make requests.

use std::{fmt, sync::Arc};

use http::HeaderValue;
use ryw_core::Level;
use tower_layer::Layer;

use crate::{
    retry::{Budget, Retry},
    service::RywClientService,
    session::Session,
};

/// Makes any Tower client carry a [`Session`]: hyper-util's, a tonic channel, or a stack of layers over them.
///
/// Each request says what the session must see, each response, errors included, teaches it. Bodies are left untouched;
/// trailers are read as they pass by. Reads that no node is fresh enough for are [made again](Retry). What was done is an
/// extension of the response: [`Report`](crate::Report).
///
/// It belongs below whatever makes requests again or elsewhere (retries, redirects, load balancers), so that each of them is
/// judged by the host that it goes to.
///
/// A write whose future is dropped, or fails, may have happened: the session is *unknown* from then on, see [`Session`]. Only a
/// session without rules that no host has answered with a token yet does not know whose write that was.
///
/// ```
/// # fn example(hyper_client: impl Clone) {
/// use ryw_client::{RywClientLayer, Session};
/// use tower_layer::Layer;
///
/// let client = RywClientLayer::new(Session::new()).layer(hyper_client);
/// # }
/// ```
#[derive(Clone)]
pub struct RywClientLayer {
    pub(crate) config: Config,
    /// All services that are made with one layer spend it together.
    budget: Arc<Budget>,
}

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) source: Source,
    pub(crate) level: Option<HeaderValue>,
    pub(crate) retry: Retry,
    /// `None`: as the client does it.
    pub(crate) redirects: Option<u32>,
    pub(crate) baggage: bool,
}

/// Whose session a request carries.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Always the same.
    Session(Session),
    /// That of the request which is being served, told to the hosts of this one.
    #[cfg(feature = "server")]
    Served(Session),
}

impl RywClientLayer {
    /// Carries this session, retries reads as [`Retry::new`] says, and follows no redirects.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self::of(Source::Session(session))
    }

    /// For a server that calls other services: each call carries what the request that is being served must see, and what
    /// comes back is joined into that request and into its response, with no code in the handler. That is what the level
    /// CAUSAL is about; it is asked for where the request asked for it.
    ///
    /// The request is the one of [`RywContext::current`](tower_ryw::RywContext::current) when the call is made: inside of a
    /// `RywLayer`, and of tasks that keep its context. Calls from elsewhere carry nothing. `hosts` are
    /// [rules](crate::SessionBuilder::send_to) for hosts that may be told; a channel that names none may be told anyhow.
    ///
    /// Services that share their signing keys and tenants understand each other's tokens. Those of others are handed through,
    /// to be understood by whoever has signed them.
    ///
    /// ```
    /// use ryw_client::RywClientLayer;
    ///
    /// let layer = RywClientLayer::within_request(["*.internal.example"])?;
    /// # Ok::<(), ryw_client::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigErrorKind::Host`](crate::ConfigErrorKind::Host) for a rule that names no host.
    #[cfg(feature = "server")]
    #[cfg_attr(docsrs, doc(cfg(feature = "server")))]
    pub fn within_request<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Result<Self, crate::ConfigError> {
        let session = hosts.into_iter().fold(Session::builder(), crate::SessionBuilder::send_to).build()?;
        Ok(Self::of(Source::Served(session)))
    }

    pub(crate) fn of(source: Source) -> Self {
        let retry = Retry::new();
        let budget = Arc::new(Budget::new(&retry));
        Self { config: Config { source, level: None, retry, redirects: None, baggage: false }, budget }
    }

    /// Asks for this level where a request does not ask for one itself. Default: what the service gives.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.config.level = HeaderValue::from_str(&level.to_string()).ok();
        self
    }

    /// Whether and for how long reads are made again. Default: [`Retry::new`].
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.budget = Arc::new(Budget::new(&retry));
        self.config.retry = retry;
        self
    }

    /// Follows up to so many redirects, each hop with what the session knows by then: after POST, redirect, GET the page shows
    /// what was posted. Hosts that the session must not be told to get no token, and other hosts than before no
    /// `Authorization` and no `Cookie`. After a redirect from https to http only rules that say `http://` count. A redirect that
    /// asks for a body that can't be sent again, or is one too many, is handed to the caller. Default: none, and up to 10 with reqwest.
    #[must_use]
    pub const fn follow_redirects(mut self, limit: u32) -> Self {
        self.config.redirects = Some(limit);
        self
    }

    /// Whether requests carry the session in their W3C `baggage` as well, for services in between that pass on baggage and
    /// nothing else. Whoever is behind them can read it. Default: false.
    ///
    /// Whatever this is, baggage that a request brings along loses its member `ryw` where the session must not be told.
    #[must_use]
    pub const fn baggage(mut self, carry: bool) -> Self {
        self.config.baggage = carry;
        self
    }
}

impl<S> Layer<S> for RywClientLayer {
    type Service = RywClientService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RywClientService::new(inner, Arc::new(self.config.clone()), Arc::clone(&self.budget))
    }
}

impl fmt::Debug for RywClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { source, retry, redirects, .. } = &self.config;
        let mut debug = f.debug_struct("RywClientLayer");
        debug.field("source", source).field("retry", retry).field("redirects", redirects).finish_non_exhaustive()
    }
}
