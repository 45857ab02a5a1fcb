//! Clocks of writes and messages flow into those of reads and receipts, and are forgotten after the last.

use super::Sweep;
use crate::{
    check::clock::join,
    history::{KeyKind, NONE, Op, Seen},
};

impl Sweep<'_> {
    pub(super) fn join_message(&mut self, number: u32, op: &Op, clock: &mut [u32]) {
        let send = self.h.sends[op.msg as usize];
        match self.slots.get(send as usize) {
            Some(slot) if *slot != NONE => {
                self.layout.join_message(clock, self.arena.get(*slot));
                if self.is_told_meanwhile(&self.h.ops[send as usize]) {
                    self.layout.join_told(clock, self.arena.get(*slot));
                }
            }
            _ => self.out.future_reads.push((send, number)),
        }
    }

    pub(super) fn join_writers(&mut self, seen: Seen, number: u32, op: &Op, clock: &mut [u32]) {
        if seen.place == NONE || !op.is_answered_read() {
            return;
        }
        if self.h.keys[seen.key as usize].kind != KeyKind::List {
            self.join_writer(seen.place, number, op, clock);
            return;
        }
        let mut path = Vec::new();
        let mut node = seen.place;
        while self.list_slots[node as usize] == NONE && self.h.trie.depth(node) > 0 {
            path.push(node);
            node = self.h.trie.parent(node);
        }
        for node in path.into_iter().rev() {
            let mut joined = vec![0; self.layout.width];
            let parent = self.h.trie.parent(node);
            if self.list_slots[parent as usize] != NONE {
                joined.copy_from_slice(self.arena.get(self.list_slots[parent as usize]));
            }
            self.join_writer(self.h.trie.value(node), number, op, &mut joined);
            self.list_slots[node as usize] = self.arena.keep(&joined);
            self.use_list(parent);
        }
        if self.list_slots[seen.place as usize] != NONE {
            join(clock, self.arena.get(self.list_slots[seen.place as usize]));
            self.use_list(seen.place);
        }
    }

    pub(super) fn use_list(&mut self, node: u32) {
        let uses = &mut self.list_uses[node as usize];
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.arena.release(self.list_slots[node as usize]);
        }
    }

    pub(super) fn join_writer(&mut self, value: u32, number: u32, op: &Op, clock: &mut [u32]) {
        let writer = self.h.values[value as usize].writer;
        let Some(write) = self.h.ops.get(writer as usize) else { return };
        if write.inv > op.ret {
            self.out.future_reads.push((writer, number));
            return;
        }
        let slot = self.slots[writer as usize];
        if slot == NONE {
            return;
        }
        join(clock, self.arena.get(slot));
        // It may have got to its server after its session had acknowledged a loss.
        if self.is_told_meanwhile(write) {
            self.layout.join_told(clock, self.arena.get(slot));
        }
        let uses = &mut self.value_uses[value as usize];
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.arena.release(slot);
            self.slots[writer as usize] = NONE;
        }
    }
}
