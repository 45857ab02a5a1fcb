//! Which request a task is serving: the task-local behind [`RywContext::current`].

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use ryw_core::{Reason, Tenant};

use super::RywContext;
use crate::{
    config::Config,
    decide::{Decision, Route},
    identify::Identity,
    lookup::Required,
    policy::Plain,
    route::{Asked, Attempt, Routing, attempt},
};

thread_local! {
    static CURRENT: RefCell<Scope> = const { RefCell::new(Scope::None) };
}

/// The context of the request that is being polled on this thread.
pub(super) fn current() -> Option<RywContext> {
    CURRENT.try_with(|current| current.try_borrow_mut().ok()?.context()).ok().flatten()
}

/// The same, unless nobody has asked for it yet.
pub(super) fn made() -> Option<RywContext> {
    CURRENT.try_with(|current| current.try_borrow().ok()?.ready().cloned()).ok().flatten()
}

/// What belongs to the request that is being polled.
#[derive(Default)]
pub(crate) enum Scope {
    /// No layer, or one that is switched off.
    #[default]
    None,
    /// A request of which nothing has to be remembered: its context is made when somebody asks for it.
    Lazy { config: Arc<Config>, plain: Plain, tenant: Tenant },
    /// The same, where somebody wants to know of it what only its head could tell.
    Watched(Box<(Arc<Config>, Identity)>),
    /// A request with a context.
    Ready(RywContext),
}

impl Scope {
    pub(crate) fn new(config: Arc<Config>, identity: Identity, required: Required, routing: Routing) -> Self {
        Self::Ready(RywContext::new(config, identity, required, routing))
    }

    /// The context, made now if need be.
    pub(crate) fn context(&mut self) -> Option<RywContext> {
        let nobody = match self {
            Self::Lazy { config, plain, tenant } => {
                Some((Arc::clone(config), Identity::nobody(tenant.clone(), config.policy.terms_of(*plain))))
            }
            Self::Watched(watched) => Some((**watched).clone()),
            Self::None | Self::Ready(_) => None,
        };
        if let Some((config, identity)) = nobody {
            let (terms, required) = (identity.terms, Required::default());
            let routing = match attempt(&config, Asked::new(&terms, &required)) {
                Attempt::Routed(routing) => routing,
                // Nothing can serve. The handler is running already, so it is the data layer that fails: no replica will
                // do, and the primary must not be asked instead.
                Attempt::Refused(reason) => refused(&config, reason),
                Attempt::Wait { .. } => refused(&config, Reason::Behind),
            };
            *self = Self::new(config, identity, required, routing);
        }
        self.ready().cloned()
    }

    /// The context, if there is one.
    pub(crate) fn ready(&self) -> Option<&RywContext> {
        match self {
            Self::Ready(context) => Some(context),
            Self::None | Self::Lazy { .. } | Self::Watched(_) => None,
        }
    }

    /// Runs `f` with this scope as the current one, also when it panics.
    pub(crate) fn enter<R>(&mut self, f: impl FnOnce() -> R) -> R {
        struct Swapped<'a>(&'a mut Scope);
        impl Drop for Swapped<'_> {
            fn drop(&mut self) {
                swap_current(self.0);
            }
        }
        swap_current(self);
        let _swapped = Swapped(self);
        f()
    }
}

fn swap_current(scope: &mut Scope) {
    // Fails only while the thread ends or inside of `current`, where no request is polled.
    let _ = CURRENT.try_with(|current| {
        if let Ok(mut current) = current.try_borrow_mut() {
            mem::swap(&mut *current, scope);
        }
    });
}

fn refused(config: &Config, reason: Reason) -> Routing {
    let route = Route::Replica { node: None };
    let decision = Decision { route, reason, achieved: false, degraded: false, waited: Duration::ZERO };
    let since = config.topology.as_ref().and_then(|topology| topology.view().era());
    Routing { decision, permit: None, since }
}

pin_project! {
    /// A future with a [`RywContext`] of its own, see [`RywContext::scope`].
    pub struct WithContext<F> {
        #[pin]
        future: F,
        scope: Scope,
    }
}

impl<F> WithContext<F> {
    pub(super) fn new(future: F, context: RywContext) -> Self {
        Self { future, scope: Scope::Ready(context) }
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.scope.enter(|| this.future.poll(cx))
    }
}

impl<F> fmt::Debug for WithContext<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithContext").field("context", &self.scope.ready()).finish_non_exhaustive()
    }
}
