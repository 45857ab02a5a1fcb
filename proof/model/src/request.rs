//! The stages of a request, in the product's order; what decides in them is the product's own.

use ryw_core::{Level, Marks, Reason};
use tower_ryw::{
    Intent, Route,
    pure::{Answer, Question},
};

use crate::{
    Action, Adrift, Ask, Fault, Mutant, Role, Ryw, Serving, State, Tab, Why, Writes, cluster::commit, property,
};

const LEVEL: Level = Level::Causal;

/// Whose request it is.
#[derive(Clone, Copy)]
struct At {
    session: u8,
    tab: u8,
}

impl At {
    const fn session(self) -> usize {
        self.session as usize
    }
}

impl Ryw {
    pub(crate) fn step_of_request(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Read(session, tab) => self.begin(state, At { session, tab }, false, false),
            Action::Acknowledge(session, tab) => self.begin(state, At { session, tab }, false, true),
            Action::Write(session, tab) => self.begin(state, At { session, tab }, true, false),
            Action::Sample(session, tab) => self.sample(state, At { session, tab }),
            Action::Settle(session, tab) => self.settled(state, At { session, tab }),
            Action::Decide(session, tab, pick) => self.decide(state, At { session, tab }, pick),
            Action::Wake(session, tab, pick) => self.wake(state, At { session, tab }, pick),
            Action::TimeOut(session, tab) => {
                let Tab::Waiting(ask) = std::mem::take(state.tab(session, tab)) else { return None };
                *state.tab(session, tab) = Tab::Ready { ask, waited: true, may_wait: false };
                Some(())
            }
            Action::Serve(session, tab) => self.serve(state, At { session, tab }),
            Action::Answer(session, tab) => self.answer(state, At { session, tab }),
            Action::Cancel(session, tab) => self.cancel(state, At { session, tab }),
            _ => None,
        }
    }

    fn instance(&self, at: At) -> usize {
        usize::from(at.tab) % self.bounds.instances
    }

    fn begin(&self, state: &mut State, at: At, writes: bool, acknowledges: bool) -> Option<()> {
        let left = if writes { &mut state.left.writes } else { &mut state.left.reads };
        *left -= 1;
        let client = &state.sessions[at.session()];
        let carried =
            if self.bounds.tokens && !self.is(Mutant::ServerOnly) { client.token.clone() } else { Marks::none() };
        let mut required = carried.clone();
        required.join(&self.load(state, at.session()));
        let (must, unsure, stamp) = (client.owed, client.unsure, client.stamp);
        let ask = Ask { writes, acknowledges, must, unsure, carried, required, stamp };
        let view = self.view(&state.truth, &state.instances[self.instance(at)]);
        let needs_sample = question(&ask, &view, false, false, 0).needs_sample(acknowledges);
        *state.tab(at.session, at.tab) =
            if needs_sample { Tab::Asking(ask) } else { Tab::Ready { ask, waited: false, may_wait: !writes } };
        Some(())
    }

    /// The primary's position, read now. Nothing if nobody is that any more.
    fn sample_primary(&self, state: &mut State, instance: usize) -> Option<usize> {
        let node = self.view(&state.truth, &state.instances[instance]).primary().and_then(number)?;
        self.read_node(state, instance, node);
        let view = self.view(&state.truth, &state.instances[instance]);
        (view.primary().and_then(number) == Some(node)).then_some(node)
    }

    fn sample(&self, state: &mut State, at: At) -> Option<()> {
        let Tab::Asking(ask) = std::mem::take(state.tab(at.session, at.tab)) else { return None };
        *state.tab(at.session, at.tab) = match self.sample_primary(state, self.instance(at)) {
            Some(node) => Tab::Sampled(ask, state.truth.nodes[node].place),
            None => Tab::Ready { ask, waited: false, may_wait: true },
        };
        Some(())
    }

    fn settled(&self, state: &mut State, at: At) -> Option<()> {
        let Tab::Sampled(mut ask, place) = std::mem::take(state.tab(at.session, at.tab)) else { return None };
        let position = self.position(place);
        let sample = Marks::at(position);
        if ask.required.is_unknown() || ask.required.is_open_in(position.epoch()) {
            self.settle(state, at.session(), ask.stamp, &sample);
        }
        if ask.acknowledges {
            let view = self.view(&state.truth, &state.instances[self.instance(at)]);
            let told = question(&ask, &view, false, false, 0).acknowledged();
            self.tell(state, at);
            self.forget_lost(state, at.session(), &told, &sample);
            ask.required = ask.required.without(&told);
            state.sessions[at.session()].mourns = false;
        }
        ask.required = ask.required.settled_by(position);
        *state.tab(at.session, at.tab) = Tab::Ready { ask, waited: false, may_wait: true };
        Some(())
    }

    fn wake(&self, state: &mut State, at: At, pick: u8) -> Option<()> {
        let Tab::Waiting(ask) = std::mem::take(state.tab(at.session, at.tab)) else { return None };
        let waiting = Tab::Waiting(ask.clone());
        *state.tab(at.session, at.tab) = Tab::Ready { ask, waited: true, may_wait: true };
        self.decide(state, at, pick)?;
        // Nothing has changed for it yet.
        (*state.tab(at.session, at.tab) != waiting).then_some(())
    }

    fn decide(&self, state: &mut State, at: At, pick: u8) -> Option<()> {
        let Tab::Ready { ask, waited, may_wait } = std::mem::take(state.tab(at.session, at.tab)) else { return None };
        let instance = state.instances[self.instance(at)];
        let view = self.view(&state.truth, &instance);
        let answer = question(&ask, &view, waited, may_wait, pick.into()).decide();
        let (route, reason, achieved) = match answer {
            Answer::Serve { route, reason, achieved } => (route, reason, achieved),
            Answer::Wait { .. } => {
                *state.tab(at.session, at.tab) = Tab::Waiting(ask);
                return Some(());
            }
            // The response says so, and nothing else.
            Answer::Refuse(reason) => {
                if reason == Reason::Lost {
                    self.tell(state, at);
                }
                return Some(());
            }
        };
        let (node, as_primary) = match &route {
            Route::Primary => (view.primary().and_then(number), true),
            Route::Replica { node } => {
                (view.nodes().iter().position(|known| Some(known.name()) == node.as_ref()), false)
            }
            _ => (None, false),
        };
        // A request for a primary that nobody knows fails.
        let Some(node) = node else { return Some(()) };
        let why = match reason {
            Reason::Lost => Why::Lost,
            Reason::Waited => Why::Waited,
            Reason::Behind => Why::FellBack,
            _ => Why::Other,
        };
        let since = view.epoch().and_then(|epoch| u8::try_from(epoch.get()).ok())?;
        let serving = Serving {
            node: u8::try_from(node).ok()?,
            run: instance.seen[node].run,
            as_primary,
            since,
            why,
            achieved,
            before: state.truth.nodes[node].place,
        };
        *state.tab(at.session, at.tab) = Tab::Routed(ask, serving);
        Some(())
    }

    fn serve(&self, state: &mut State, at: At) -> Option<()> {
        let Tab::Routed(ask, serving) = std::mem::take(state.tab(at.session, at.tab)) else { return None };
        let node = state.truth.nodes[usize::from(serving.node)];
        if ask.writes {
            let history = state.truth.shown(node.place);
            // Where it is not what was meant, nothing was written, and the response says so.
            let Some(write) = commit(state, serving.node.into(), serving.run, self.bounds.synchronous) else {
                return Some(());
            };
            let told = state.sessions[at.session()].told;
            if !ask.must.without(history).without(told).is_empty() {
                state.fault = Some(Fault::Order);
            }
            *state.tab(at.session, at.tab) = Tab::Written(ask, serving, write);
            return Some(());
        }
        // A connection to another run of the server than was read is not used.
        let is_same = node.run == serving.run && (!serving.as_primary || node.role == Role::Primary);
        if node.role == Role::Down || !is_same && !self.is(Mutant::ChecksOnce) {
            *state.tab(at.session, at.tab) = Tab::Ready { ask, waited: false, may_wait: false };
            return Some(());
        }
        let shown = state.truth.shown(node.shows());
        if serving.achieved {
            state.fault = property::below_demand(&state.truth, &ask, node.shows()).or(state.fault);
        }
        *state.tab(at.session, at.tab) = Tab::Served(ask, serving, shown);
        Some(())
    }

    fn answer(&self, state: &mut State, at: At) -> Option<()> {
        match std::mem::take(state.tab(at.session, at.tab)) {
            Tab::Served(ask, serving, shown) => self.answer_read(state, at, ask, serving, shown),
            Tab::Written(ask, serving, write) => self.answer_write(state, at, ask, serving, write),
            _ => None,
        }
    }

    fn answer_read(&self, state: &mut State, at: At, ask: Ask, serving: Serving, shown: Writes) -> Option<()> {
        let found = self.read_mark(state, at, serving);
        if serving.why == Why::Lost {
            self.tell(state, at);
        } else if serving.achieved {
            let client = &state.sessions[at.session()];
            state.fault = property::missing(&state.truth, client, &ask, shown).or(state.fault);
        }
        self.join(state, at.session(), &found);
        if self.is(Mutant::Unsticks) && !serving.as_primary {
            state.sessions[at.session()].entry = Some(Marks::none());
        }
        let client = &mut state.sessions[at.session()];
        client.owed = client.owed.and(shown);
        self.give_token(state, at, ask, &found);
        Some(())
    }

    /// What a read has shown lies at or before this.
    fn read_mark(&self, state: &mut State, at: At, serving: Serving) -> Marks {
        if self.is(Mutant::ForgetsReads) {
            return Marks::none();
        }
        if self.is(Mutant::MarksBeforeReading) {
            return Marks::at(self.position(serving.before));
        }
        let node = state.truth.nodes[usize::from(serving.node)];
        if node.role != Role::Down && node.run == serving.run {
            return Marks::at(self.position(self.reported(&state.truth, &node)));
        }
        match self.sample_primary(state, self.instance(at)) {
            Some(primary) => {
                let place = state.truth.nodes[primary].place;
                let mut marks = Marks::at(self.position(place));
                if place.epoch != serving.since {
                    marks.join(&self.end_of(serving.since));
                }
                marks
            }
            None => {
                let mut marks = self.unknown(state, at);
                marks.join(&self.end_of(serving.since));
                marks
            }
        }
    }

    fn answer_write(&self, state: &mut State, at: At, ask: Ask, serving: Serving, write: u8) -> Option<()> {
        let node = state.truth.nodes[usize::from(serving.node)];
        let place = state.truth.log[usize::from(write)];
        let is_same = node.role == Role::Primary && node.run == serving.run;
        // A commit that waits for a replica is not answered before that has confirmed it.
        if is_same && node.visible < place.offset {
            return None;
        }
        let found = if self.is(Mutant::CapturesBefore) {
            Marks::at(self.position(serving.before))
        } else if self.is(Mutant::AnyWitness) {
            let sample = self.sample_primary(state, self.instance(at));
            sample.map_or_else(Marks::unknown, |node| Marks::at(self.position(state.truth.nodes[node].place)))
        } else if is_same {
            Marks::at(self.position(node.place))
        } else {
            self.end_of(place.epoch)
        };
        self.join(state, at.session(), &found);
        let client = &mut state.sessions[at.session()];
        let write = Writes::one(write.into());
        (client.own, client.owed) = (client.own.and(write), client.owed.and(write));
        self.give_token(state, at, ask, &found);
        Some(())
    }

    /// What answers a request takes the place of what that request carried.
    fn give_token(&self, state: &mut State, at: At, ask: Ask, found: &Marks) {
        if !self.bounds.tokens {
            return;
        }
        let mut given = ask.required.clone();
        given.join(found);
        let client = &mut state.sessions[at.session()];
        if client.token == ask.carried {
            client.token = given;
        } else {
            client.token.join(&given);
        }
    }

    /// The response says that acknowledged writes are lost: those that were answered before it, as far as the instance knows. So
    /// says an acknowledgement, for whoever sends it.
    fn tell(&self, state: &mut State, at: At) {
        let view = self.view(&state.truth, &state.instances[self.instance(at)]);
        let epoch = view.epoch().and_then(|epoch| u8::try_from(epoch.get()).ok()).unwrap_or(1);
        let dead = state.truth.dead(epoch);
        let client = &mut state.sessions[at.session()];
        (client.told, client.mourns) = (client.told.and(dead.both(client.owed)), true);
    }

    fn cancel(&self, state: &mut State, at: At) -> Option<()> {
        let client = &mut state.sessions[at.session()];
        match std::mem::take(&mut client.tabs[usize::from(at.tab)]) {
            Tab::Routed(_, serving) => {
                client.adrift = Some(Adrift { node: serving.node, run: serving.run, committed: false });
            }
            Tab::Written(_, _, write) => client.unsure = client.unsure.and(Writes::one(write.into())),
            _ => return None,
        }
        // The client can't know either, and says so with its next request.
        if self.bounds.tokens {
            client.token.join(&Marks::unknown());
        }
        state.left.cancels -= 1;
        if !self.is(Mutant::CancelLeavesNothing) {
            let unknown = self.unknown(state, at);
            self.join(state, at.session(), &unknown);
        }
        Some(())
    }

    fn unknown(&self, state: &State, at: At) -> Marks {
        let view = self.view(&state.truth, &state.instances[self.instance(at)]);
        if self.is(Mutant::NamesNoEpoch) { Marks::unknown() } else { tower_ryw::pure::unknown(&view) }
    }
}

fn question<'a>(
    ask: &'a Ask,
    view: &'a tower_ryw::topology::View,
    waited: bool,
    may_wait: bool,
    pick: usize,
) -> Question<'a> {
    let intent = if ask.writes { Intent::Write } else { Intent::Read };
    Question { intent, level: LEVEL, marks: &ask.required, view, waited, may_wait, pick }
}

/// Nodes are named by their numbers.
fn number(node: &tower_ryw::topology::NodeView) -> Option<usize> {
    node.name().as_str().strip_prefix('n')?.parse().ok()
}
