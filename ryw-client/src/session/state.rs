//! What a session knows, and how requests and responses change it. No locks and no I/O in here.

use http::{HeaderMap, HeaderName, HeaderValue};
use ryw_core::{Acknowledged, Lost, SessionId, wire};

use super::{
    hosts::{Destination, HostRule, Origin},
    tokens::{TokenSet, Values},
};

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) id: Option<SessionId>,
    pub(crate) tokens: TokenSet,
    /// The host that the session belongs to, where no rule says so.
    pub(crate) home: Option<Box<str>>,
    /// What did not survive a failover, until the caller has acknowledged it.
    pub(crate) lost: Option<Lost>,
    /// A write went without an answer: the number of the last such, until a server that was told has answered. 0: none.
    pub(crate) unsure: u32,
    /// How many went without an answer ever. It only grows, so that no number is used twice.
    pub(crate) doubts: u32,
    /// What the caller has acknowledged, and servers have not heard yet.
    pub(crate) acknowledged: Option<Lost>,
    /// What somebody else has acknowledged, for whom this session calls.
    pub(crate) handed_on: Option<Acknowledged>,
}

/// What one request carried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) id: Option<SessionId>,
    pub(crate) tokens: Values,
    pub(crate) acknowledges: Option<Acknowledged>,
    unsure: u32,
}

/// Whether a session may be told to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Ours,
    /// Nobody has said yet whose session it is.
    Open,
    Foreign,
}

impl State {
    pub(crate) fn is_empty(&self) -> bool {
        self.id.is_none() && self.tokens.is_empty() && self.unsure == 0
    }

    pub(crate) fn trust(&self, rules: &[HostRule], to: &Destination) -> Trust {
        let Destination::Host(origin) = to else { return Trust::Ours };
        let ours = match (&self.home, rules) {
            (None, []) => return Trust::Open,
            (Some(home), []) => **home == *origin.to_string(),
            (_, rules) => rules.iter().any(|rule| rule.admits(origin)),
        };
        if ours { Trust::Ours } else { Trust::Foreign }
    }

    pub(crate) fn settle_in(&mut self, origin: &Origin) {
        self.home = Some(origin.to_string().into());
    }

    pub(crate) fn outgoing(&self) -> Sent {
        let mut tokens = self.tokens.values();
        if self.unsure > 0 && tokens.last().is_none_or(|last| last != wire::UNKNOWN_TOKEN) {
            tokens.push(HeaderValue::from_static(wire::UNKNOWN_TOKEN));
        }
        let acknowledges = self.handed_on.or(self.acknowledged.map(|lost| Acknowledged::UpTo(lost.epoch)));
        Sent { id: self.id.clone(), tokens, acknowledges, unsure: self.unsure }
    }

    /// A write went without an answer, and may have happened.
    pub(crate) fn doubt(&mut self) -> bool {
        self.doubts = self.doubts.wrapping_add(1).max(1);
        self.unsure = self.doubts;
        true
    }

    /// Joins what a response, or its trailers, say. Returns whether anything has changed.
    pub(crate) fn learn(&mut self, sent: &Sent, headers: &HeaderMap) -> bool {
        let mut changed = false;
        for token in tokens(headers).take(wire::MAX_TOKENS) {
            changed |= self.tokens.add(&token, &sent.tokens);
            // A later doubt is not settled by an answer to an earlier one.
            if self.unsure > 0 && sent.unsure == self.unsure && TokenSet::reads(&token) {
                (self.unsure, changed) = (0, true);
            }
        }
        // The session that a server has begun, or changed. Of two that began at once the first one stays: the tokens of
        // both are carried.
        if let Some(id) = one(headers, &wire::SESSION_ID).and_then(|id| SessionId::try_from(id).ok())
            && sent.id.as_ref() != Some(&id)
            && self.id == sent.id
            && headers.contains_key(&wire::CONSISTENCY_ENFORCED)
        {
            self.id = Some(id);
            changed = true;
        }
        changed | self.learn_loss(sent, headers)
    }

    fn learn_loss(&mut self, sent: &Sent, headers: &HeaderMap) -> bool {
        let lost = one(headers, &wire::LOST).and_then(Lost::from_header);
        match lost {
            // It is still being told, to requests that had left before.
            Some(lost) if self.acknowledged.is_some_and(|known| lost <= known) => false,
            Some(lost) if self.lost < Some(lost) => {
                (self.lost, self.acknowledged) = (Some(lost), None);
                true
            }
            None if sent.acknowledges.is_some() && speaks(headers) => self.acknowledged.take().is_some(),
            _ => false,
        }
    }

    pub(crate) fn acknowledge(&mut self) -> bool {
        let known = self.lost.take();
        self.acknowledged = known.or(self.acknowledged);
        known.is_some()
    }
}

/// Whether a response comes from a server that knows what a session is.
pub(crate) fn speaks(headers: &HeaderMap) -> bool {
    headers.contains_key(&wire::TOKEN) || headers.contains_key(&wire::CONSISTENCY_ENFORCED)
}

/// The tokens of a response. Proxies write a repeated field as one, separated by commas (RFC 9110, 5.3).
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = HeaderValue> {
    let parts = headers.get_all(&wire::TOKEN).iter().flat_map(|value| {
        let is_list = value.as_bytes().contains(&b',');
        let whole = (!is_list).then(|| value.clone());
        let parts = is_list.then(|| value.as_bytes().split(|byte| *byte == b',')).into_iter().flatten();
        whole.into_iter().chain(parts.filter_map(|part| HeaderValue::from_bytes(part.trim_ascii()).ok()))
    });
    parts.filter(|token| !token.is_empty())
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAWsBVi3IhSdWAAAAAQAAAAAEAlwYAJGBkhn_aOa5535U6eiUnaY";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn id(name: &str) -> Option<SessionId> {
        Some(name.parse().unwrap())
    }

    #[test]
    fn of_two_sessions_that_began_at_once_the_first_stays() {
        let mut state = State::default();
        let sent = state.outgoing();
        let said = |name| headers(&[("x-session-id", name), ("x-consistency-enforced", "true")]);
        assert!(state.learn(&sent, &said("first")));
        assert!(!state.learn(&sent, &said("second")));
        assert_eq!(state.id, id("first"));

        // A login gives the session another name.
        assert!(state.learn(&state.outgoing(), &said("rotated")));
        assert_eq!(state.id, id("rotated"));
    }

    #[test]
    fn a_name_that_is_not_meant_for_us_is_not_taken() {
        for said in [
            &[("x-session-id", "somebody-elses")][..],
            &[("x-session-id", "two words"), ("x-consistency-enforced", "true")],
            &[("x-session-id", "a"), ("x-session-id", "b"), ("x-consistency-enforced", "true")],
        ] {
            let mut state = State::default();
            state.learn(&Sent::default(), &headers(said));
            assert_eq!(state.id, None, "{said:?}");
        }
    }

    #[test]
    fn tokens_that_a_proxy_has_written_as_one_are_several() {
        let apart = headers(&[("ryw-token", "a"), ("ryw-token", TOKEN)]);
        let joined = headers(&[(
            "ryw-token",
            "a , ,AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAWsBVi3IhSdWAAAAAQAAAAAEAlwYAJGBkhn_aOa5535U6eiUnaY",
        )]);
        for headers in [apart, joined] {
            assert_eq!(tokens(&headers).collect::<Vec<_>>(), ["a", TOKEN]);
            let mut state = State::default();
            assert!(state.learn(&Sent::default(), &headers));
            assert_eq!(state.outgoing().tokens.to_vec(), [TOKEN]);
        }
    }

    #[test]
    fn a_loss_is_told_until_it_is_acknowledged_and_a_later_one_again() {
        let mut state = State::default();
        let first = headers(&[("ryw-lost", "?1;epoch=2;was=1"), ("x-consistency-enforced", "false")]);
        let early = state.outgoing();
        assert!(state.learn(&early, &first));
        assert_eq!(state.lost.map(|lost| (lost.epoch.get(), lost.was.get())), Some((2, 1)));
        assert!(state.outgoing().acknowledges.is_none(), "the caller has not said so");

        assert!(state.acknowledge());
        let sent = state.outgoing();
        assert!(sent.acknowledges.is_some() && state.lost.is_none());
        state.learn(&early, &first);
        assert!(state.lost.is_none(), "that answer was on its way");
        state.learn(&sent, &HeaderMap::new());
        assert!(state.outgoing().acknowledges.is_some(), "a proxy's answer: the server has not heard it");
        state.learn(&sent, &headers(&[("x-consistency-enforced", "true")]));
        assert!(state.outgoing().acknowledges.is_none());

        state.learn(&sent, &headers(&[("ryw-lost", "?1;epoch=3;was=2")]));
        assert_eq!(state.lost.map(|lost| lost.epoch.get()), Some(3));
    }

    #[test]
    fn what_is_joined_after_an_acknowledgement_is_not_taken_for_acknowledged() {
        const TOKEN: &str =
            "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAWsBVi3IhSdWAAAAAQAAAAAEAlwYAJGBkhn_aOa5535U6eiUnaY";
        let told = headers(&[("ryw-lost", "?1;epoch=2;was=1"), ("x-consistency-enforced", "false")]);
        let (mut sender, mut state) = (State::default(), State::default());
        sender.learn(&Sent::default(), &headers(&[("ryw-token", TOKEN)]));
        state.learn(&Sent::default(), &told);
        state.acknowledge();
        state.join(&sender.envelope());
        let sent = state.outgoing();
        assert!(sent.acknowledges.is_none() && !sent.tokens.is_empty());
        // The server tells it again, and this time it is all of it.
        state.learn(&sent, &told);
        assert!(state.lost.is_some() && state.acknowledge());
        state.join(&sender.envelope());
        assert!(state.outgoing().acknowledges.is_some(), "that is no news");
    }

    #[test]
    fn what_another_has_acknowledged_is_not_what_only_this_one_has() {
        const TOKEN: &str =
            "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAWsBVi3IhSdWAAAAAQAAAAAEAlwYAJGBkhn_aOa5535U6eiUnaY";
        let (mut saved, mut state) = (State::default(), State::default());
        saved.learn(
            &Sent::default(),
            &headers(&[("ryw-lost", "?1;epoch=2;was=1"), ("x-consistency-enforced", "false")]),
        );
        saved.acknowledge();
        state.learn(&Sent::default(), &headers(&[("ryw-token", TOKEN)]));
        state.restore(&saved);
        assert!(state.outgoing().acknowledges.is_none());
        let mut state = State::default();
        state.restore(&saved);
        assert!(state.outgoing().acknowledges.is_some(), "it goes on as that session");
    }
}
