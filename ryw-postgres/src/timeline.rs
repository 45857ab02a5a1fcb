//! Timeline history: where each timeline forked from its parent.

use ryw_core::Epoch;
use tokio_postgres::types::PgLsn;

/// `epoch` continued the log of `parent` from `at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    pub(crate) epoch: Epoch,
    pub(crate) parent: Epoch,
    pub(crate) at: u64,
}

/// Reads the history file of `timeline`: a line per ancestor, oldest first, `id <tab> LSN of its end <tab> reason`.
/// Lines that are not of this form (comments, blank ones) are passed over, as the server does.
pub(crate) fn parse(timeline: Epoch, file: &str) -> Vec<Fork> {
    let ancestors: Vec<(Epoch, u64)> = file
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let id = fields.next()?.parse().ok()?;
            let end: PgLsn = fields.next()?.parse().ok()?;
            Some((Epoch::new(id), end.into()))
        })
        .collect();
    let children = ancestors.iter().skip(1).map(|(child, _)| *child).chain([timeline]);
    ancestors.iter().zip(children).map(|((parent, at), epoch)| Fork { epoch, parent: *parent, at: *at }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_ends_an_ancestor() {
        let file = "# a comment\n1\t0/4025C18\tno recovery target specified\n\n2\tA/10\tbefore 2000-01-01\n";
        let fork = |epoch, parent, at| Fork { epoch: Epoch::new(epoch), parent: Epoch::new(parent), at };
        assert_eq!(parse(Epoch::new(5), file), [fork(2, 1, 0x0402_5C18), fork(5, 2, 0xA_0000_0010)]);
        assert_eq!(parse(Epoch::new(1), ""), []);
        assert_eq!(parse(Epoch::new(2), "garbage\n1 nonsense\n"), []);
    }
}
