//! All lists that were ever read, as one tree: each list is a path, so that equal prefixes are stored once and whether one
//! list is a prefix of another is a question about ancestors.

use std::collections::HashMap;

use crate::history::NONE;

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    value: u32,
    depth: u32,
    first_child: u32,
}

/// A forest with a root (the empty list) per key.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    further_children: HashMap<(u32, u32), u32>,
}

impl Trie {
    pub(crate) fn root(&mut self) -> u32 {
        self.push(NONE, NONE, 0)
    }

    /// The list at `parent` with `value` appended.
    pub(crate) fn child(&mut self, parent: u32, value: u32) -> u32 {
        let Node { first_child, depth, .. } = self.nodes[parent as usize];
        if first_child == NONE {
            let child = self.push(parent, value, depth + 1);
            self.nodes[parent as usize].first_child = child;
            return child;
        }
        if self.value(first_child) == value {
            return first_child;
        }
        if let Some(child) = self.further_children.get(&(parent, value)) {
            return *child;
        }
        let child = self.push(parent, value, depth + 1);
        self.further_children.insert((parent, value), child);
        child
    }

    pub(crate) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    pub(crate) fn value(&self, node: u32) -> u32 {
        self.nodes[node as usize].value
    }

    pub(crate) fn depth(&self, node: u32) -> u32 {
        self.nodes[node as usize].depth
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the list at `node` contains `value`. Linear in its length.
    pub(crate) fn contains(&self, mut node: u32, value: u32) -> bool {
        while self.depth(node) > 0 {
            if self.value(node) == value {
                return true;
            }
            node = self.parent(node);
        }
        false
    }

    fn push(&mut self, parent: u32, value: u32, depth: u32) -> u32 {
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { parent, value, depth, first_child: NONE });
        node
    }
}
