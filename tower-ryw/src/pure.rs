//! The pure stages, for whoever checks them from outside of this crate: the model in `proof/model` asks these functions and
//! not a copy of them. Not part of the API.

use std::time::Duration;

use ryw_core::{Acknowledged, Level, Marks, Reason};

use crate::{
    decide::{self, Excluded, Next, Route},
    lookup::{self, Required},
    policy::{Intent, Ladder, Source, Terms},
    topology::View,
};

/// A request, and what is known when it is decided.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whether it reads.
    pub intent: Intent,
    /// What was promised.
    pub level: Level,
    /// What it must see.
    pub marks: &'a Marks,
    /// Where the nodes are.
    pub view: &'a View,
    /// Whether it has waited already.
    pub waited: bool,
    /// Whether it may wait.
    pub may_wait: bool,
    /// Which of several good replicas to take.
    pub pick: usize,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "not part of the API")]
pub enum Answer {
    /// It is served.
    Serve {
        /// Where.
        route: Route,
        /// Why there.
        reason: Reason,
        /// Whether the level is achieved.
        achieved: bool,
    },
    /// It waits until a node has reached this offset.
    Wait {
        /// The offset.
        offset: u64,
    },
    /// It is refused.
    Refuse(Reason),
}

impl Question<'_> {
    /// Stage 3.
    #[must_use]
    pub fn decide(&self) -> Answer {
        let required = Required { marks: self.marks.clone(), ..Required::default() };
        let next = decide::decide(&decide::Question {
            terms: &self.terms(),
            required: &required,
            view: Some(self.view),
            now: &decide::Now::default(),
            waited: Duration::from_nanos(u64::from(self.waited)),
            may_wait: self.may_wait,
            budget: true,
            pick: [self.pick; 2],
            excluded: Excluded::These(&[]),
        });
        match next {
            Next::Serve(decision) => {
                Answer::Serve { route: decision.route, reason: decision.reason, achieved: decision.achieved }
            }
            Next::Wait { offset } => Answer::Wait { offset },
            Next::Refuse(reason) => Answer::Refuse(reason),
        }
    }

    /// Whether stage 2 samples the primary before that.
    #[must_use]
    pub fn needs_sample(&self, acknowledges: bool) -> bool {
        lookup::needs_sample(self.view, &self.terms(), acknowledges, self.marks)
    }

    /// What the bare word of an acknowledgement takes out of the marks.
    #[must_use]
    pub fn acknowledged(&self) -> Marks {
        self.view.acknowledged(self.marks, Acknowledged::Told)
    }

    fn terms(&self) -> Terms {
        Terms {
            intent: self.intent,
            level: self.level,
            bound: None,
            reads_raise_marks: self.level.reads_raise_marks(),
            ladder: Ladder::new(),
            strict_writes: false,
            source: Source::Update,
            rule: 0,
        }
    }
}

/// What is recorded where nobody knows whether something was written.
#[must_use]
pub fn unknown(view: &View) -> Marks {
    view.unknown()
}
