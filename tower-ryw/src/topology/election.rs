//! Who is the primary, and who must not be used.

use std::collections::HashMap;

use ryw_core::{Epoch, Lineage};

use super::{Incarnation, NodeState, NodeView, Reading, Role, View};

/// Epochs whose claims are remembered.
const CLAIMS: usize = 64;

/// Who has claimed to be the primary of which epoch, and who was a replica until then.
///
/// Epochs are numbered by those who are promoted: two replicas that don't know of each other's promotion take the same
/// number for two histories. Whoever comes second must not be used, because its positions would be compared with those of
/// the first one.
#[derive(Debug, Default)]
pub(super) struct Reigns {
    /// The oldest first.
    claims: Vec<Claim>,
    /// The run in which a node was last seen as a replica.
    followed: HashMap<usize, Incarnation>,
}

#[derive(Debug)]
struct Claim {
    epoch: Epoch,
    node: usize,
    run: Incarnation,
}

impl Reigns {
    /// Takes note of a reading. Returns whether it claims an epoch that is another's.
    pub(super) fn is_contested(&mut self, view: &View, lineage: &Lineage, node: usize, reading: &Reading) -> bool {
        let (epoch, run) = (reading.position.epoch(), reading.incarnation);
        if reading.role == Role::Replica {
            self.followed.insert(node, run);
            return false;
        }
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.epoch == epoch) else {
            if self.claims.len() == CLAIMS {
                self.claims.remove(0);
            }
            self.claims.push(Claim { epoch, node, run });
            return false;
        };
        if (claim.node, claim.run) == (node, run) {
            return false;
        }
        // A promotion begins an epoch, and whoever has followed another one until then has begun this one anew.
        let promoted = claim.node != node && self.followed.get(&node) == Some(&run);
        let contradicts = |(epoch, parent, offset): &(Epoch, Epoch, u64)| {
            lineage.clone().with_fork(*epoch, *parent, *offset).is_err()
        };
        let forked_elsewhere = reading.forks.iter().any(contradicts);
        let holder = &view.nodes[claim.node];
        let both = claim.node != node && holder.state == NodeState::Primary && holder.incarnation != run;
        let contested = promoted || forked_elsewhere || both;
        if !contested {
            // The same history in another run, or found at another address.
            (claim.node, claim.run) = (node, run);
        } else if view.nodes[node].state != NodeState::Fenced {
            tracing::error!(
                node = %view.nodes[node].name,
                epoch = epoch.get(),
                first = %holder.name,
                "two servers were promoted to the same epoch: the second one is fenced; promote it once more"
            );
        }
        contested
    }
}

/// The primary is the node that says so in the newest epoch; whoever says so in an older one is fenced, and so is a
/// replica that shows what the newest epoch's history does not contain, as far as is known.
pub(super) fn elect(view: &mut View) {
    let claims = |node: &NodeView| matches!(node.state, NodeState::Primary | NodeState::Fenced);
    let current = view.lineage.as_ref().map(|lineage| (lineage.cluster(), lineage.current()));
    for node in view.nodes.iter_mut().filter(|node| claims(node)) {
        let place = node.applied.map(|applied| (applied.cluster(), applied.epoch()));
        let rightful = node.state == NodeState::Primary && place.is_some() && place == current;
        node.state = if rightful { NodeState::Primary } else { NodeState::Fenced };
    }
    if let Some(lineage) = &view.lineage {
        let belongs = |node: &NodeView| node.applied.is_some_and(|applied| lineage.continues(applied));
        for node in view.nodes.iter_mut().filter(|node| node.state == NodeState::Replica && !belongs(node)) {
            node.state = NodeState::Fenced;
        }
    }
    view.primary = view.nodes.iter().position(|node| node.state == NodeState::Primary);
}
