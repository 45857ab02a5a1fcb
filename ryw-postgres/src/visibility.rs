//! What a primary's own snapshots are certain to show.
//!
//! A commit that waits for a synchronous standby is written, and may be visible on the standby, but is not visible here.
//! Nothing says which transaction has written its commit already: it is in progress for everybody until its wait is over.
//! So a position counts once all transactions that were in progress when it was read have ended.

use std::time::Duration;

use ryw_core::Position;
use tokio::time::Instant;

/// A transaction that is in progress for so long after a reading, and does not wait for a standby, had not written its
/// commit by then: between the two, a process that is not stopped spends microseconds.
const AT_WORK: Duration = Duration::from_secs(1);

/// Of one node, over one connection.
#[derive(Debug, Default)]
pub(crate) struct Visibility {
    /// `None` while commits wait for nobody: what is written is visible.
    waits: Option<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    visible: Option<Position>,
    /// The next position to count.
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    position: Position,
    /// The transactions that were in progress then and are still, and until when they may have written their commit.
    writers: Vec<(u64, Instant)>,
}

/// A transaction in progress: its number, negative while it waits for a standby.
pub(crate) type Writer = i64;

impl Visibility {
    /// Whether transactions in progress matter also when commits wait for nobody any more: some may not have heard.
    pub(crate) const fn is_behind(&self) -> bool {
        self.waits.is_some()
    }

    /// What is visible where that differs from what is written: as far as is known, up to a position or not at all.
    pub(crate) fn get(&self) -> Option<Option<Position>> {
        self.waits.as_ref().map(|waits| waits.visible)
    }

    /// A position that was read, then whether commits wait for standbys, then the transactions in progress; `None` where
    /// nobody waits and [`is_behind`](Self::is_behind) was not true.
    pub(crate) fn observe(&mut self, position: Position, synchronous: bool, writers: Option<&[Writer]>, now: Instant) {
        let Some(writers) = writers else {
            self.waits = None;
            return;
        };
        let waits = self.waits.get_or_insert_default();
        waits.observe(position, writers, now);
        if !synchronous && waits.visible == Some(position) {
            self.waits = None;
        }
    }
}

impl Waits {
    fn observe(&mut self, position: Position, writers: &[Writer], now: Instant) {
        if let Some(pending) = &mut self.pending {
            pending.observe(writers, now);
        }
        if let Some(pending) = self.pending.take_if(|pending| pending.writers.is_empty()) {
            self.visible = Some(pending.position);
        }
        if writers.is_empty() {
            (self.visible, self.pending) = (Some(position), None);
        } else if self.pending.is_none() {
            let writers = writers.iter().map(|writer| (writer.unsigned_abs(), now + AT_WORK)).collect();
            self.pending = Some(Pending { position, writers });
        }
    }
}

impl Pending {
    fn observe(&mut self, writers: &[Writer], now: Instant) {
        self.writers.retain_mut(|(number, until)| {
            match writers.iter().find(|writer| writer.unsigned_abs() == *number) {
                Some(writer) if writer.is_negative() => {
                    *until = now + AT_WORK;
                    true
                }
                Some(_) => now < *until,
                None => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch};

    use super::*;

    fn at(offset: u64) -> Position {
        Position::new(ClusterId::new(1), Epoch::new(1), offset)
    }

    /// A node whose readings are told in ms, offset and transactions.
    struct Node(Visibility, Instant);

    impl Node {
        fn new() -> Self {
            Self(Visibility::default(), Instant::now())
        }

        fn read(&mut self, ms: u64, offset: u64, writers: &[Writer]) -> Option<u64> {
            self.0.observe(at(offset), true, Some(writers), self.1 + Duration::from_millis(ms));
            self.0.get().expect("commits wait").map(Position::offset)
        }
    }

    #[test]
    fn a_position_counts_when_all_that_was_in_progress_has_ended() {
        let mut node = Node::new();
        assert_eq!(node.read(0, 10, &[]), Some(10));
        assert_eq!(node.read(1, 20, &[7]), Some(10), "it may have written its commit, and be about to wait");
        assert_eq!(node.read(2, 30, &[-7, 8]), Some(10));
        assert_eq!(node.read(3, 40, &[8, 9]), Some(20), "those that came later don't hold it back");
        assert_eq!(node.read(4, 50, &[9]), Some(20), "9 was in progress at 40");
        assert_eq!(node.read(5, 60, &[10]), Some(40));
        assert_eq!(node.read(6, 70, &[]), Some(70));
    }

    #[test]
    fn nothing_is_visible_for_certain_before_the_first_have_ended() {
        let mut node = Node::new();
        assert_eq!(node.read(0, 10, &[7]), None);
        assert_eq!(node.read(1, 20, &[8]), Some(10));
    }

    #[test]
    fn a_long_statement_holds_back_for_a_second_and_a_waiting_commit_for_ever() {
        let mut node = Node::new();
        assert_eq!(node.read(0, 10, &[7, -8]), None);
        assert_eq!(node.read(1500, 20, &[7, -8]), None);
        assert_eq!(node.read(60_000, 30, &[7, -8]), None);
        assert_eq!(node.read(60_100, 40, &[7, 8]), None, "it is over in a moment");
        assert_eq!(node.read(60_200, 50, &[7]), Some(10));
        assert_eq!(node.read(61_300, 60, &[7]), Some(50));
    }

    #[test]
    fn the_second_is_counted_from_the_last_look_that_saw_it_wait() {
        let mut node = Node::new();
        assert_eq!(node.read(0, 10, &[7]), None);
        assert_eq!(node.read(999, 20, &[7]), None);
        assert_eq!(node.read(1000, 30, &[-7]), None, "it has written its commit after all");
        assert_eq!(node.read(1999, 40, &[7]), None);
        assert_eq!(node.read(2000, 50, &[7]), Some(10));
    }

    #[test]
    fn what_has_waited_is_followed_to_its_end_when_nobody_has_to_wait_any_more() {
        let mut node = Node::new();
        let now = node.1;
        node.read(0, 10, &[-7]);
        node.0.observe(at(20), false, Some(&[-7, 8]), now);
        assert_eq!((node.0.get(), node.0.is_behind()), (Some(None), true), "the setting is gone, the wait is not");
        node.0.observe(at(30), false, Some(&[]), now);
        assert_eq!((node.0.get(), node.0.is_behind()), (None, false));
        node.0.observe(at(40), false, None, now);
        assert_eq!(node.0.get(), None);
    }
}
