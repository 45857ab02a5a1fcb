//! The request that a server is serving while it calls another service.

use std::{future::Future, pin::Pin};

use http::HeaderValue;
#[cfg(feature = "server")]
use ryw_core::Level;
#[cfg(feature = "server")]
use tower_ryw::RywContext;

use crate::session::Session;

pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// It, and what it had to carry when the call began. Nobody's request without the feature `server`.
#[derive(Clone)]
pub(crate) struct Served {
    #[cfg(feature = "server")]
    context: Option<(RywContext, std::sync::Arc<Carried>)>,
}

#[cfg(feature = "server")]
struct Carried {
    tokens: Vec<HeaderValue>,
    /// The doubt that the request came with.
    unsure: u32,
}

impl Served {
    pub(crate) const fn nobody() -> Self {
        Self {
            #[cfg(feature = "server")]
            context: None,
        }
    }
}

#[cfg(not(feature = "server"))]
#[expect(clippy::unused_self, reason = "the same calls with and without the feature")]
impl Served {
    pub(crate) const fn level(&self) -> Option<&'static HeaderValue> {
        None
    }

    pub(crate) const fn hand_over(&self, _: &Session) -> Option<Work> {
        None
    }

    pub(crate) const fn hand_over_late(&self, _: &Session) {}
}

#[cfg(feature = "server")]
impl Served {
    /// The current one, and a session for this call alone.
    pub(crate) fn current(hosts: &Session) -> (Session, Self) {
        let Some(context) = RywContext::current() else { return (hosts.within(None, &[], None), Self::nobody()) };
        let session = hosts.within(context.session().cloned(), &context.tokens(), context.acknowledged_loss());
        let carried = Carried { tokens: session.tokens(), unsure: session.unsure() };
        (session, Self { context: Some((context, carried.into())) })
    }

    /// The level to ask for, where the request has one that goes beyond its own service.
    pub(crate) fn level(&self) -> Option<&'static HeaderValue> {
        static CAUSAL: HeaderValue = HeaderValue::from_static("CAUSAL");
        let (context, _) = self.context.as_ref()?;
        (context.level() == Level::Causal).then_some(&CAUSAL)
    }

    /// Joins what the call has brought into the request.
    pub(crate) fn hand_over(&self, session: &Session) -> Option<Work> {
        let (context, carried) = self.context.as_ref()?;
        if let Some(lost) = session.lost() {
            context.join_lost(lost);
        }
        let news: Vec<_> = session.tokens().into_iter().filter(|token| !carried.tokens.contains(token)).collect();
        let doubts = session.unsure() > carried.unsure;
        if news.is_empty() && !doubts {
            return None;
        }
        // All are joined now; only the store is waited for.
        let stored: Vec<_> = news.iter().map(|token| context.join_token(token)).collect();
        let unknown = doubts.then(|| context.join_unknown());
        Some(Box::pin(async move {
            for stored in stored {
                stored.await;
            }
            if let Some(unknown) = unknown {
                unknown.await;
            }
        }))
    }

    /// The same where nothing can be waited for: the response tells it, if it has not left, and the store is told by a task,
    /// which ends by the store's deadline.
    pub(crate) fn hand_over_late(&self, session: &Session) {
        if let Some(work) = self.hand_over(session)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}
