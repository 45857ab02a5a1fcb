//! Which faults are on, and what they mean for the next bytes. Pure, so that it can be tested as a table.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) to_server: Flow,
    pub(super) to_client: Flow,
    pub(super) refuse: bool,
}

/// The faults of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) black_hole: bool,
    pub(super) delay: Duration,
    pub(super) drip: Option<Drip>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Drip {
    pub(super) bytes: usize,
    pub(super) every: Duration,
}

/// When the next bytes may be delivered, and how many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) at: Instant,
    pub(super) bytes: usize,
}

impl Faults {
    /// Whether a handshake gets through, which takes both directions.
    pub(super) fn pass(&self) -> bool {
        !self.to_server.black_hole && !self.to_client.black_hole
    }
}

impl Flow {
    /// For bytes that came at `arrived`, while others were last delivered at `last`. `None`: not before the faults
    /// change.
    pub(super) fn allows(&self, arrived: Instant, last: Option<Instant>) -> Option<Allowed> {
        if self.black_hole {
            return None;
        }
        // Later than the clock can tell is never.
        let at = arrived.checked_add(self.delay)?;
        Some(match (self.drip, last) {
            (None, _) => Allowed { at, bytes: usize::MAX },
            (Some(drip), None) => Allowed { at, bytes: drip.bytes },
            (Some(drip), Some(last)) => Allowed { at: at.max(last.checked_add(drip.every)?), bytes: drip.bytes },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_holds_bytes_back_in_its_way() {
        let second = Duration::from_secs(1);
        let drip = Some(Drip { bytes: 3, every: 4 * second });
        let arrived = Instant::now();
        let none = Flow::default();
        for (flow, last, expected) in [
            (none, None, Some((0, usize::MAX))),
            (none, Some(arrived), Some((0, usize::MAX))),
            (Flow { delay: second, ..none }, None, Some((1, usize::MAX))),
            (Flow { drip, ..none }, None, Some((0, 3))),
            (Flow { drip, ..none }, Some(arrived), Some((4, 3))),
            (Flow { drip, delay: second, ..none }, Some(arrived), Some((4, 3))),
            (Flow { drip, delay: 9 * second, ..none }, Some(arrived), Some((9, 3))),
            (Flow { black_hole: true, drip, delay: second }, Some(arrived), None),
            (Flow { delay: Duration::MAX, ..none }, None, None),
        ] {
            let expected = expected.map(|(seconds, bytes)| Allowed { at: arrived + second * seconds, bytes });
            assert_eq!(flow.allows(arrived, last), expected, "{flow:?}");
        }
    }

    #[test]
    fn a_handshake_takes_both_directions() {
        let black = Flow { black_hole: true, ..Flow::default() };
        assert!(Faults { refuse: true, ..Faults::default() }.pass());
        assert!(!Faults { to_server: black, ..Faults::default() }.pass());
        assert!(!Faults { to_client: black, ..Faults::default() }.pass());
    }
}
