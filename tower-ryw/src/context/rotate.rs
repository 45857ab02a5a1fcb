//! A session that goes on under another name: after a login, a sign-up, or whenever an application changes its own session.

use ryw_core::{Mark, Marks, SessionId, Update};

use super::{Inner, RywContext};
use crate::lookup::Doubt;

impl RywContext {
    /// The client's session is called `to` from here on: the response names it, and its token and cookie are the new session's.
    /// Whatever the old one had to see the new one has to see too, and this request's writes are both sessions'.
    ///
    /// For handlers that log somebody in: what was written as a guest stays visible. A name is no credential; `to` is one that
    /// this session may know, and not the application's secret. The last call counts.
    ///
    /// Wait for it before the response is made. When the mark store does not answer by its deadline, or the future is dropped,
    /// only what the client carries goes along; with the store's failure the response says that the level was not enforced,
    /// and the new session is *unknown*.
    ///
    /// ```
    /// use tower_ryw::{RywContext, SessionId};
    ///
    /// async fn login() -> Result<(), Box<dyn std::error::Error>> {
    ///     // … the password is right …
    ///     if let Some(ryw) = RywContext::current() {
    ///         ryw.rotate_session(&SessionId::random()?).await;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn rotate_session(&self, to: &SessionId) {
        let Inner { config, identity, required, progress, .. } = &*self.0;
        let key = config.keys.newest().session(&identity.tenant, to);
        let mut marks = identity.carried.marks.clone();
        marks.join(&required.marks);
        if !identity.carried.hint.is_none() && required.doubt != Doubt::Heeded {
            marks.join(&Marks::unknown());
        }
        {
            let mut progress = progress.lock();
            progress.born = Some((to.clone(), key));
            progress.is_renamed = true;
            progress.hop.marks.join(&marks);
        }
        // A write has not looked up what its session wrote before.
        if !identity.keys.is_empty() {
            match config.store.load(&identity.keys).await {
                Ok(loaded) => {
                    marks.join(&loaded.marks);
                    marks.join(&loaded.floor);
                }
                Err(error) => {
                    tracing::warn!(%error, "a session was renamed without what the mark store knows of it");
                    marks.join(&Marks::unknown());
                    progress.lock().hop.unstored += 1;
                }
            }
        }
        progress.lock().hop.marks.join(&marks);
        let mut kept: Marks = marks.positions().iter().copied().map(Mark::At).collect();
        if marks.is_unknown() && config.topology.is_some() {
            kept.join(&Marks::unknown());
        }
        let hold = (marks.is_pending() || marks.is_unknown()).then(|| config.window.now());
        if kept.is_none() && hold.is_none() {
            return;
        }
        if let Err(error) = config.store.join(&[key], &Update { marks: kept, hold }).await {
            tracing::warn!(%error, "what a renamed session must see was not stored");
            progress.lock().hop.unstored += 1;
        }
    }
}
