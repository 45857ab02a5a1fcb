//! What an answer is worth: what is written down of it, and as whose.

use http::{HeaderMap, StatusCode};
use ryw_check::{Level, Operation, Outcome, Value};
use ryw_core::{Lost, wire};
use serde_json::Value as Json;

use crate::service::{EFFECT, EPOCH, NODE};

/// An answer to a session, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Json,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is owed, or it has certainly not happened, or it may have and will be seen if so.
    Is(Outcome),
    /// It may have happened, and nothing is promised of it. Whether its answer has told of a loss.
    Nobodys { tells_loss: bool },
    /// Nobody has said anything: it may still be on its way.
    Unanswered,
}

/// What a read is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// What it shows counts.
    Promised(Outcome),
    /// What it shows is promised to nobody, also where it tells of a loss.
    Nobodys(Outcome),
    /// It shows nothing.
    Nothing(Outcome),
}

impl Answer {
    fn says(&self, name: &str, value: &str) -> bool {
        [name.to_owned(), format!("x-relayed-{name}")]
            .iter()
            .any(|name| self.headers.get(name).is_some_and(|said| said == value))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name) || self.headers.contains_key(format!("x-relayed-{name}"))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn tells_loss(&self) -> bool {
        self.has("ryw-lost")
    }

    fn is_enforced(&self) -> bool {
        !self.says("x-consistency-enforced", "false")
    }

    pub(crate) fn val(&self) -> Option<Value> {
        value(self.body.get("val")?)
    }

    pub(crate) fn version(&self) -> Option<i64> {
        self.body.get("ver")?.as_i64()
    }

    /// Who has answered. Where a loss is told, the epoch that began with it: it may be told by a node that is still in the one
    /// before.
    pub(crate) fn served(&self, line: Operation) -> Operation {
        let node = self.text(NODE).map(|node| format!("n{node}"));
        let lost_in = || Lost::from_header(self.headers.get(&wire::LOST)?).map(|lost| lost.epoch.get());
        let epoch = lost_in().map(i64::from).or_else(|| self.text(EPOCH)?.parse().ok());
        Operation { node, epoch, ..line }
    }
}

/// Of a session that `carries` its tokens, or only says its name.
pub(crate) fn write(answer: &Answer, carries: bool, is_relayed: bool) -> Written {
    let tells_loss = answer.tells_loss();
    match (answer.status.as_u16(), answer.text(EFFECT)) {
        (200, _) if tells_loss => Written::Nobodys { tells_loss },
        (200, _) if answer.is_enforced() || carries => Written::Is(Outcome::Ok),
        (_, Some("none")) => Written::Is(Outcome::Fail),
        // Refused by the layer: the handler has not been called.
        (_, None) if !is_relayed => Written::Is(Outcome::Fail),
        (500, Some("done")) if answer.is_enforced() => Written::Is(Outcome::Info),
        (200 | 500, Some("done")) => Written::Nobodys { tells_loss: false },
        _ => Written::Unanswered,
    }
}

pub(crate) fn read(answer: &Answer) -> Shown {
    let out = |otherwise| if answer.tells_loss() { Outcome::Reset } else { otherwise };
    match answer.status == StatusCode::OK {
        true if answer.is_enforced() => Shown::Promised(out(Outcome::Ok)),
        true => Shown::Nobodys(out(Outcome::Fail)),
        false => Shown::Nothing(out(Outcome::Fail)),
    }
}

/// What an answer has shown that promises nothing.
pub(crate) fn nobodys(line: Operation) -> Operation {
    Operation { s: "nobody".into(), tab: 0, level: Some(Level::Eventual), epoch: None, ..line }
}

/// A write whose answer promises nothing is owed to nobody unless it is seen, and follows nothing: neither what its session was to
/// see, nor what other answers of this kind have shown.
pub(crate) fn nobodys_write(line: Operation) -> Operation {
    Operation { s: "nobody-writes".into(), out: Outcome::Info, ret: None, ..nobodys(line) }
}

/// What the service shows, as histories have it.
pub(crate) fn value(shown: &Json) -> Option<Value> {
    let list = |values: &Json| values.as_array()?.iter().map(Json::as_i64).collect::<Option<Vec<_>>>();
    match shown {
        Json::Array(_) => list(shown).map(Value::List),
        Json::Object(lists) => {
            let lists = lists.iter().map(|(key, values)| Some((key.clone(), list(values)?)));
            lists.collect::<Option<_>>().map(Value::Snapshot)
        }
        Json::Null => Some(Value::Register(None)),
        _ => shown.as_i64().map(|value| Value::Register(Some(value))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Json::Null }
    }

    const FALSE: (&str, &str) = ("x-consistency-enforced", "false");
    const RELAYED_FALSE: (&str, &str) = ("x-relayed-x-consistency-enforced", "false");
    const TRUE: (&str, &str) = ("x-consistency-enforced", "true");
    const LOST: (&str, &str) = ("ryw-lost", "?1;epoch=2;was=1");
    const DONE: (&str, &str) = (EFFECT, "done");

    /// Found by seeds 167, 424 and 1013.
    #[test]
    fn what_promises_nothing_is_nobodys() {
        for (status, headers, carries, expected) in [
            (200, &[DONE, TRUE][..], false, Written::Is(Outcome::Ok)),
            (200, &[DONE, FALSE], false, Written::Nobodys { tells_loss: false }),
            (200, &[DONE, RELAYED_FALSE], false, Written::Nobodys { tells_loss: false }),
            (200, &[DONE, FALSE], true, Written::Is(Outcome::Ok)),
            (200, &[DONE, FALSE, LOST], true, Written::Nobodys { tells_loss: true }),
            (200, &[DONE, FALSE, LOST], false, Written::Nobodys { tells_loss: true }),
            (500, &[DONE, TRUE], false, Written::Is(Outcome::Info)),
            (500, &[DONE, FALSE], true, Written::Nobodys { tells_loss: false }),
            (500, &[(EFFECT, "unknown"), FALSE], false, Written::Unanswered),
            (409, &[LOST], false, Written::Is(Outcome::Fail)),
            (503, &[(EFFECT, "none"), FALSE], false, Written::Is(Outcome::Fail)),
        ] {
            assert_eq!(write(&answer(status, headers), carries, false), expected, "{status} {headers:?} {carries}");
        }
        assert_eq!(write(&answer(502, &[]), false, true), Written::Unanswered, "nobody knows what was called");
        for (status, headers, expected) in [
            (200, &[TRUE][..], Shown::Promised(Outcome::Ok)),
            (200, &[TRUE, LOST], Shown::Promised(Outcome::Reset)),
            (200, &[FALSE], Shown::Nobodys(Outcome::Fail)),
            (200, &[RELAYED_FALSE, TRUE], Shown::Nobodys(Outcome::Fail)),
            (200, &[FALSE, LOST], Shown::Nobodys(Outcome::Reset)),
            (503, &[FALSE], Shown::Nothing(Outcome::Fail)),
            (503, &[FALSE, LOST], Shown::Nothing(Outcome::Reset)),
        ] {
            assert_eq!(read(&answer(status, headers)), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn values_are_those_of_histories() {
        for (shown, expected) in [
            (json!([1, 2]), Some(Value::List(vec![1, 2]))),
            (json!([]), Some(Value::List(vec![]))),
            (json!(7), Some(Value::Register(Some(7)))),
            (json!(null), Some(Value::Register(None))),
            (json!({"k": [3]}), Some(Value::Snapshot([("k".to_owned(), vec![3])].into()))),
            (json!(["1"]), None),
            (json!("1"), None),
        ] {
            assert_eq!(value(&shown), expected, "{shown}");
        }
    }
}
