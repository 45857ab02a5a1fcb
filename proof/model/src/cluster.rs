//! What happens to nodes, and what instances read of them.

use crate::{Action, Adrift, Mutant, Node, Place, Role, Ryw, State, Writes, state::Instance};

impl Ryw {
    /// Takes a step, or says that there is none.
    pub(crate) fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Apply(node) => apply(state, node.into()),
            Action::Follow(node) => follow(state, node.into()),
            Action::Confirm(node) => confirm(state, node.into()),
            Action::Promote(node, dies) => promote(state, node.into(), dies),
            Action::Rebuild(node) => rebuild(state, node.into()),
            Action::Report(instance, node) => {
                let before = state.instances[usize::from(instance)];
                self.read_node(state, instance.into(), node.into());
                (before != state.instances[usize::from(instance)]).then_some(())
            }
            Action::LoseStore => self.lose_store(state),
            Action::Evict(session) => self.evict(state, session.into()),
            Action::Send(session) => self.send(state, session.into()),
            Action::Receive => receive(state),
            Action::Drift(session) => drift(state, session.into()),
            Action::Sink(session) => self.sink(state, session.into()),
            _ => self.step_of_request(state, action),
        }
    }

    /// One reading by an instance's watcher.
    pub(crate) fn read_node(&self, state: &mut State, instance: usize, node: usize) {
        let is = state.truth.nodes[node];
        let Instance { seen, known } = &mut state.instances[instance];
        if is.role == Role::Down {
            seen[node] = Node::default();
            return;
        }
        seen[node] = is;
        if is.role == Role::Replica {
            seen[node].visible = 0;
            if self.is(Mutant::Receives) {
                seen[node].place.offset = state.truth.end(is.place.epoch);
            }
        }
        let mut epoch = is.place.epoch;
        *known |= 1 << epoch;
        while let Some(fork) = state.truth.fork(epoch) {
            epoch = fork.epoch;
            *known |= 1 << epoch;
        }
    }
}

fn apply(state: &mut State, number: usize) -> Option<()> {
    let node = state.truth.nodes[number];
    // What its primary had written may have been received before that went away, or not.
    (node.role == Role::Replica && node.place.offset < state.truth.end(node.place.epoch)).then_some(())?;
    state.truth.nodes[number].place.offset += 1;
    Some(())
}

fn follow(state: &mut State, number: usize) -> Option<()> {
    let Node { role, place, .. } = state.truth.nodes[number];
    (role == Role::Replica).then_some(())?;
    let newest = state.truth.newest();
    // The child of its own epoch on the way to the newest one, which it can follow from the very fork only.
    let next = (place.epoch + 1..=newest)
        .find(|epoch| state.truth.fork(*epoch) == Some(place) && state.truth.descends(newest, *epoch))?;
    state.truth.nodes[number].place.epoch = next;
    Some(())
}

fn confirm(state: &mut State, number: usize) -> Option<()> {
    let Node { role, place, visible, .. } = state.truth.nodes[number];
    (role == Role::Primary && visible < place.offset).then_some(())?;
    let next = Place::new(place.epoch, visible + 1);
    let has_it = |node: &Node| node.role == Role::Replica && state.truth.contains(node.place, next);
    state.truth.nodes.iter().any(has_it).then_some(())?;
    state.truth.nodes[number].visible += 1;
    Some(())
}

fn promote(state: &mut State, number: usize, dies: bool) -> Option<()> {
    let fork = state.truth.origin(state.truth.nodes[number].place);
    if let Some(old) = state.primary()
        && dies
    {
        state.truth.nodes[old] = Node { run: state.truth.nodes[old].run, ..Node::default() };
    }
    state.truth.forks.push(fork);
    let place = Place::new(state.truth.newest(), fork.offset);
    let node = &mut state.truth.nodes[number];
    (node.role, node.place, node.visible) = (Role::Primary, place, place.offset);
    state.left.failovers -= 1;
    Some(())
}

fn rebuild(state: &mut State, number: usize) -> Option<()> {
    let primary = state.primary()?;
    (number != primary).then_some(())?;
    let epoch = state.truth.newest();
    let place = Place::new(epoch, state.truth.begin(epoch));
    let run = state.truth.nodes[number].run + 1;
    state.truth.nodes[number] = Node { role: Role::Replica, place, visible: 0, run };
    state.left.rebuilds -= 1;
    Some(())
}

/// Commits at `node`, if it is what was meant. Returns the number of the write.
pub(crate) fn commit(state: &mut State, number: usize, run: u8, synchronous: bool) -> Option<u8> {
    let node = state.truth.nodes[number];
    (node.role == Role::Primary && node.run == run).then_some(())?;
    let place = Place::new(node.place.epoch, node.place.offset + 1);
    let write = state.truth.log.len();
    state.truth.log.push(place);
    let node = &mut state.truth.nodes[number];
    node.place = place;
    if !synchronous {
        node.visible = place.offset;
    }
    u8::try_from(write).ok()
}

/// A write that nobody waits for commits after all.
fn drift(state: &mut State, session: usize) -> Option<()> {
    let adrift = state.sessions[session].adrift.filter(|adrift| !adrift.committed)?;
    let write = commit(state, adrift.node.into(), adrift.run, false)?;
    let client = &mut state.sessions[session];
    client.adrift = Some(Adrift { committed: true, ..adrift });
    client.unsure = client.unsure.and(Writes::one(write.into()));
    Some(())
}

fn receive(state: &mut State) -> Option<()> {
    let message = state.message.take()?;
    let client = &mut state.sessions[usize::from(message.to)];
    client.token.join(&message.marks);
    client.owed = client.owed.and(message.owed);
    Some(())
}
