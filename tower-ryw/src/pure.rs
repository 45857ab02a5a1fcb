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

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Position};

    use super::*;
    use crate::topology::{Reading, Role, Topology};

    fn at(epoch: u32, offset: u64) -> Position {
        Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
    }

    /// A primary of epoch 2, which began at 100, and a replica of it.
    fn view() -> View {
        let topology = Topology::new();
        let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
        let fork = |reading: Reading| reading.fork(Epoch::new(2), Epoch::new(1), 100);
        primary.begin().report(fork(Reading::new(Role::Primary, at(2, 200))));
        replica.begin().report(fork(Reading::new(Role::Replica, at(2, 150))));
        View::clone(&topology.view())
    }

    fn question<'a>(view: &'a View, level: Level, marks: &'a Marks) -> Question<'a> {
        Question { intent: Intent::Read, level, marks, view, waited: false, may_wait: true, pick: 0 }
    }

    #[test]
    fn a_question_is_asked_as_it_stands() {
        let view = view();
        let serve = |node: Option<&str>, reason, achieved| {
            let route = node.map_or(Route::Primary, |node| Route::Replica { node: Some(node.into()) });
            Answer::Serve { route, reason, achieved }
        };
        let none = Marks::none();
        let [reached, ahead, lost] = [at(2, 150), at(2, 151), at(1, 101)].map(Marks::at);
        let read = |marks| question(&view, Level::Session, marks);
        let write = |level| Question { intent: Intent::Write, ..question(&view, level, &lost) };
        for (question, expected) in [
            (read(&none), serve(Some("r1"), Reason::NoMarks, true)),
            (read(&reached), serve(Some("r1"), Reason::CaughtUp, true)),
            (Question { waited: true, ..read(&reached) }, serve(Some("r1"), Reason::Waited, true)),
            (read(&ahead), Answer::Wait { offset: 151 }),
            (Question { may_wait: false, ..read(&ahead) }, serve(None, Reason::Behind, true)),
            (read(&lost), serve(None, Reason::Lost, false)),
            (write(Level::Session), Answer::Refuse(Reason::Lost)),
            (write(Level::ReadYourWrites), serve(None, Reason::Write, true)),
        ] {
            assert_eq!(question.decide(), expected, "{question:?}");
        }
    }

    #[test]
    fn what_is_unknown_is_sampled_and_what_is_lost_is_acknowledged() {
        let view = view();
        let (open, lost) = (Marks::unknown(), Marks::at(at(1, 101)));
        for (marks, acknowledges, expected) in [
            (&open, false, true),
            (&Marks::at(at(2, 150)), false, false),
            (&Marks::pending(), false, false),
            (&lost, false, false),
            (&lost, true, true),
        ] {
            assert_eq!(question(&view, Level::Session, marks).needs_sample(acknowledges), expected, "{marks}");
        }
        assert!(!question(&view, Level::Eventual, &open).needs_sample(false));
        let mut both = lost.clone();
        both.join(&Marks::at(at(2, 150)));
        assert_eq!(question(&view, Level::Session, &both).acknowledged(), lost);
        assert!(unknown(&view).is_unknown() && unknown(&view).positions() == [at(2, 100)]);
    }
}
