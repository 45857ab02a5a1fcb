//! What an answer means for the history. Pure, so that it can be tested as a table.

use http::HeaderMap;
use ryw_check::Outcome;
use ryw_core::{Lost, wire};

use crate::service::{EPOCH, NODE};

/// What a response says besides its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) enforced: Option<bool>,
    /// It told that acknowledged writes were lost.
    pub(crate) lost: bool,
    /// In which epoch that was, as it says.
    pub(crate) lost_since: Option<i64>,
    /// Whether a replica served, as the layer says.
    pub(crate) replica: Option<bool>,
    pub(crate) node: Option<String>,
    pub(crate) epoch: Option<i64>,
    /// Why it was served there, in the layer's words.
    pub(crate) route: String,
}

impl Answer {
    pub(crate) fn of(status: u16, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            enforced: text(wire::CONSISTENCY_ENFORCED.as_str()).map(|said| said == "true"),
            lost: headers.contains_key(&wire::LOST),
            lost_since: headers.get(&wire::LOST).and_then(Lost::from_header).map(|lost| lost.epoch.get().into()),
            replica: text(wire::ROUTE.as_str()).map(|route| route.starts_with("replica")),
            node: text(NODE).map(str::to_owned),
            epoch: text(EPOCH).and_then(|epoch| epoch.parse().ok()),
            route: text(wire::ROUTE.as_str()).unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A write: what became of it, and whether its return counts. One that nobody has promised is owed to nobody until
/// somebody has seen it; one that failed behind the layer may have happened, and the layer has taken note of it.
pub(crate) fn write(answer: Option<&Answer>) -> (Outcome, bool) {
    match answer {
        // A service that says nothing about it has promised what it has acknowledged.
        Some(answer) if answer.succeeded() && answer.enforced != Some(false) => (Outcome::Ok, true),
        Some(answer) => (Outcome::Info, answer.enforced == Some(true)),
        None => (Outcome::Info, false),
    }
}

/// What a read is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// At the level that was asked for.
    Promised,
    /// The answer itself says that it is not.
    Unpromised,
    /// It told of a loss; it may show something or not.
    Reset,
    /// It shows nothing.
    Failed,
}

pub(crate) fn read(answer: &Answer) -> Read {
    match answer {
        Answer { lost: true, .. } => Read::Reset,
        answer if !answer.succeeded() => Read::Failed,
        Answer { enforced: Some(false), .. } => Read::Unpromised,
        _ => Read::Promised,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, enforced: Option<bool>, lost: bool) -> Answer {
        Answer { status, enforced, lost, ..Answer::default() }
    }

    #[test]
    fn writes() {
        for (said, expected) in [
            (None, (Outcome::Info, false)),
            (Some(answer(200, Some(true), false)), (Outcome::Ok, true)),
            (Some(answer(200, Some(true), true)), (Outcome::Ok, true)),
            (Some(answer(200, Some(false), false)), (Outcome::Info, false)),
            (Some(answer(200, None, false)), (Outcome::Ok, true)),
            (Some(answer(502, None, false)), (Outcome::Info, false)),
            (Some(answer(502, Some(true), false)), (Outcome::Info, true)),
            (Some(answer(502, Some(false), false)), (Outcome::Info, false)),
            (Some(answer(409, Some(false), true)), (Outcome::Info, false)),
        ] {
            assert_eq!(write(said.as_ref()), expected, "{said:?}");
        }
    }

    #[test]
    fn reads() {
        for (said, expected) in [
            (answer(200, Some(true), false), Read::Promised),
            (answer(200, None, false), Read::Promised),
            (answer(200, Some(false), false), Read::Unpromised),
            (answer(200, Some(true), true), Read::Reset),
            (answer(503, Some(false), true), Read::Reset),
            (answer(503, Some(false), false), Read::Failed),
        ] {
            assert_eq!(read(&said), expected, "{said:?}");
        }
    }

    #[test]
    fn headers_are_read() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-consistency-enforced", "true"),
            ("ryw-route", "replica;node=\"r1\";reason=caught-up;level=ryw"),
            ("ryw-lost", "?1;epoch=2;was=1"),
            ("x-test-node", "r1"),
            ("x-test-epoch", "2"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let expected = Answer {
            status: 200,
            enforced: Some(true),
            lost: true,
            lost_since: Some(2),
            replica: Some(true),
            node: Some("r1".into()),
            epoch: Some(2),
            route: "replica;node=\"r1\";reason=caught-up;level=ryw".into(),
        };
        assert_eq!(Answer::of(200, &headers), expected);
    }
}
