//! What may happen next.

use crate::{Bounds, Role, SESSIONS, State, Tab};

/// One step. Sessions, tabs, nodes and instances are named by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A tab sends a read.
    Read(u8, u8),
    /// A tab sends a read that acknowledges a loss.
    Acknowledge(u8, u8),
    /// A tab sends a write.
    Write(u8, u8),
    /// The primary is sampled for a request.
    Sample(u8, u8),
    /// The store is told of the sample.
    Settle(u8, u8),
    /// A request is decided; the last number picks one of several good replicas.
    Decide(u8, u8, u8),
    /// A waiting request was woken, and is decided.
    Wake(u8, u8, u8),
    /// A waiting request has lost its patience.
    TimeOut(u8, u8),
    /// The node that was chosen reads or writes.
    Serve(u8, u8),
    /// The mark is recorded, and the response goes out.
    Answer(u8, u8),
    /// The client of a write gives up.
    Cancel(u8, u8),
    /// A write that nobody waits for commits after all.
    Drift(u8),
    /// A write that nobody waits for can't commit any more.
    Sink(u8),
    /// A replica applies one more place of its epoch's log.
    Apply(u8),
    /// A replica goes on to the next epoch.
    Follow(u8),
    /// A commit was confirmed by a replica, and is visible on the primary.
    Confirm(u8),
    /// A replica becomes the primary; the old one dies, or lives on.
    Promote(u8, bool),
    /// A node begins again as a replica, from where the current epoch began.
    Rebuild(u8),
    /// An instance reads a node.
    Report(u8, u8),
    /// The store forgets everything.
    LoseStore,
    /// The store evicts one session.
    Evict(u8),
    /// One session sends a message to the other.
    Send(u8),
    /// It arrives.
    Receive,
}

/// What may be tried in `state`; what does not fit after all is refused by the step.
pub(crate) fn propose(bounds: &Bounds, state: &State, actions: &mut Vec<Action>) {
    let small = |count: usize| 0..u8::try_from(count).unwrap_or(u8::MAX);
    for session in small(bounds.sessions) {
        for tab in small(bounds.tabs) {
            of_tab(bounds, state, session, tab, actions);
        }
        let client = &state.sessions[usize::from(session)];
        if client.adrift.is_some() {
            actions.extend([Action::Drift(session), Action::Sink(session)]);
        }
        if state.left.evictions > 0 {
            actions.push(Action::Evict(session));
        }
        if state.left.messages > 0 && state.message.is_none() && bounds.sessions == SESSIONS {
            actions.push(Action::Send(session));
        }
    }
    for node in small(bounds.nodes) {
        actions.extend([Action::Apply(node), Action::Follow(node)]);
        if bounds.synchronous {
            actions.push(Action::Confirm(node));
        }
        if state.left.failovers > 0 && state.truth.nodes[usize::from(node)].role == Role::Replica {
            actions.extend([Action::Promote(node, true), Action::Promote(node, false)]);
        }
        if state.left.rebuilds > 0 {
            actions.push(Action::Rebuild(node));
        }
        actions.extend(small(bounds.instances).map(|instance| Action::Report(instance, node)));
    }
    if state.left.losses > 0 {
        actions.push(Action::LoseStore);
    }
    if state.message.is_some() {
        actions.push(Action::Receive);
    }
}

fn of_tab(bounds: &Bounds, state: &State, session: u8, tab: u8, actions: &mut Vec<Action>) {
    let client = &state.sessions[usize::from(session)];
    let picks = 0..u8::try_from(bounds.nodes - 1).unwrap_or(u8::MAX);
    match &client.tabs[usize::from(tab)] {
        Tab::Idle => {
            if state.left.reads > 0 {
                actions.push(Action::Read(session, tab));
                if client.mourns {
                    actions.push(Action::Acknowledge(session, tab));
                }
            }
            if state.left.writes > 0 {
                actions.push(Action::Write(session, tab));
            }
        }
        Tab::Asking(_) => actions.push(Action::Sample(session, tab)),
        Tab::Sampled(..) => actions.push(Action::Settle(session, tab)),
        Tab::Ready { .. } => actions.extend(picks.map(|pick| Action::Decide(session, tab, pick))),
        Tab::Waiting(_) => {
            actions.extend(picks.map(|pick| Action::Wake(session, tab, pick)));
            actions.push(Action::TimeOut(session, tab));
        }
        Tab::Routed(ask, _) => {
            actions.push(Action::Serve(session, tab));
            if ask.writes && state.left.cancels > 0 && client.adrift.is_none() {
                actions.push(Action::Cancel(session, tab));
            }
        }
        Tab::Served(..) => actions.push(Action::Answer(session, tab)),
        Tab::Written(..) => {
            actions.push(Action::Answer(session, tab));
            if state.left.cancels > 0 {
                actions.push(Action::Cancel(session, tab));
            }
        }
    }
}
