//! What each reason means, for somebody who has not read the code.

use ryw_core::Reason;

/// How a reason is drawn: those that belong together look alike.
pub(crate) const fn family(reason: Reason) -> &'static str {
    match reason {
        Reason::NoMarks | Reason::CaughtUp | Reason::Waited | Reason::StaleAllowed => "served",
        Reason::Write | Reason::Strong | Reason::Replayed => "primary",
        Reason::Behind | Reason::Window | Reason::PendingWrite => "lag",
        _ => "trouble",
    }
}

pub(crate) const fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::NoMarks => "The session has nothing that it must see, so any replica may serve it.",
        Reason::CaughtUp => "A replica had applied everything that the session must see.",
        Reason::Waited => "A replica applied what the session must see while the request waited for it.",
        Reason::Behind => "No replica had applied what the session must see in time. Replicas lag: look at the nodes.",
        Reason::Window => {
            "The session has written a moment ago. No positions are known, so it stays on the primary for a fixed time."
        }
        Reason::PendingWrite => {
            "A write of the session may still be on its way; only the primary is certain to show it."
        }
        Reason::UnknownMarks => {
            "What the session must see is not known: after a restart, for a token that was not believed, or after a write \
             without an answer. On the primary: no replica had what the primary had then. On a replica: a token was not believed, so nothing was owed."
        }
        Reason::Write => "The request writes, and only the primary takes writes.",
        Reason::Strong => "The level of the request asks for the primary.",
        Reason::StoreUnavailable => {
            "The store that instances share did not answer in time, so nobody knew what the session must see."
        }
        Reason::NoReplica => "No replica is in service. Look at the nodes.",
        Reason::Budget => {
            "No replica was fresh enough, and the primary already had as many such reads as it may have at a time."
        }
        Reason::StaleAllowed => "The level or the route allows to read what is a little old, so a replica served it.",
        Reason::Lost => "Something that the session had written or seen did not survive a failover.",
        Reason::Replayed => "The request looked like a read, turned out to write, and was made again on the primary.",
        _ => "A reason that this page does not know.",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// With what to do about it.
    #[test]
    fn every_reason_is_in_the_table_of_the_readme() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        let table = readme.split("\n### Reasons\n").nth(1).unwrap().split("\n### ").next().unwrap();
        let rows: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(rows, Reason::ALL.map(Reason::word));
    }

    #[test]
    fn every_reason_is_explained_by_a_sentence_of_its_own() {
        let sentences: HashSet<_> = Reason::ALL.into_iter().map(meaning).collect();
        assert_eq!(sentences.len(), Reason::ALL.len());
        assert!(sentences.iter().all(|sentence| sentence.ends_with('.') && !sentence.contains("does not know.")));
    }
}
