//! The same request once more, to see what the primary answers. Nothing of it is told or recorded.

use std::{sync::Arc, time::Duration};

use ryw_core::{Position, Reason, Relation};

use super::RywContext;
use crate::{
    decide::{Decision, Route},
    outcome::Told,
    policy::Intent,
    record::seen_by,
    route::Routing,
    topology::NodeName,
};

impl RywContext {
    /// Whether the request was promised something that can be looked up: a read that has to see positions, all of them
    /// known, and that goes to a replica.
    pub(crate) fn is_promised(&self) -> bool {
        let inner = &*self.0;
        let (terms, marks) = (&inner.identity.terms, &inner.required.marks);
        terms.intent == Intent::Read
            && terms.level.follows_marks()
            && inner.decision.achieved
            && !marks.is_unknown()
            && !marks.is_pending()
            && marks.positions().iter().any(|position| !position.is_end())
            && self.route() != Route::Primary
    }

    /// The replica that has served it in the end; `None` where it was not one alone, or the request has written.
    pub(crate) fn replica(&self) -> Option<Option<NodeName>> {
        let told = self.0.progress.lock().told;
        match self.served().0 {
            Route::Replica { node } if told != Told::Written => Some(node),
            _ => None,
        }
    }

    /// The same request on the primary.
    pub(crate) fn on_primary(&self) -> Self {
        let inner = &*self.0;
        let decision = Decision {
            route: Route::Primary,
            reason: Reason::Strong,
            achieved: true,
            degraded: false,
            waited: Duration::ZERO,
        };
        let since = inner.config.topology.as_ref().and_then(|topology| topology.view().era());
        let routing = Routing { decision, permit: None, since };
        Self::new(Arc::clone(&inner.config), inner.identity.clone(), inner.required.clone(), routing)
    }

    /// Whether a snapshot that the primary takes from now on is certain to show what the request has to see: a commit that
    /// waits for a synchronous standby can be visible elsewhere first.
    pub(crate) fn is_visible_on_primary(&self) -> bool {
        let inner = &*self.0;
        let Some(topology) = &inner.config.topology else { return false };
        let view = topology.view();
        let Some((lineage, primary)) = view.lineage.as_ref().zip(view.primary()) else { return false };
        let shows = |visible| view.relation_in(lineage, &inner.required.marks, visible) == Relation::Reached;
        !primary.synchronous || primary.visible.is_some_and(shows)
    }

    /// How far the primary had come after it had served the request: at least as far as what it has shown. `None` where
    /// somebody else has served it, or nobody can tell.
    pub(crate) async fn shown_by_primary(&self) -> Option<Vec<Position>> {
        let topology = self.0.config.topology.as_ref()?;
        let served = self.end().served;
        let by_primary = served.by.iter().all(|(route, _)| *route == Route::Primary);
        if by_primary { seen_by(topology, &served).await } else { None }
    }

    /// Whether all of these lie at or before what the request has to see: nothing has been written that it need not see.
    pub(crate) fn has_to_see(&self, shown: &[Position]) -> bool {
        let inner = &*self.0;
        let Some(topology) = &inner.config.topology else { return false };
        let view = topology.view();
        let Some(lineage) = &view.lineage else { return false };
        let promised = || inner.required.marks.positions().iter().filter(|position| !position.is_end());
        let is_within = |at: &Position| promised().any(|mark| lineage.relate(*at, *mark) == Relation::Reached);
        !shown.is_empty() && shown.iter().all(is_within)
    }
}
