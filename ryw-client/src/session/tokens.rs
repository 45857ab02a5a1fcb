//! A small set of tokens of which none is contained in the others.
//!
//! Without a key two tokens can't be made into one, so all of them are sent and the server joins them. What a token
//! requires is only [peeked](Token::peek) at: whoever lies about it makes a server that checks the signature treat the
//! session as *unknown*, which is never less than what a true token requires.

use http::HeaderValue;
use ryw_core::{Peeked, Token, TokenError, wire};
use smallvec::SmallVec;

/// Most tokens that are kept. One less than what a server looks at, to leave room for the one that says that
/// something is missing.
pub(crate) const MAX_HELD: usize = wire::MAX_TOKENS - 1;
/// Most issuers of which it is remembered that a token had to go.
const MAX_DROPPED: usize = 8;

/// The values of a request's `Ryw-Token` headers. Cheap to clone.
pub(crate) type Values = SmallVec<[HeaderValue; 2]>;

/// By whom and for which tenant a token was signed: servers that have signed one of them can check all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issuer {
    pub(crate) key: u8,
    pub(crate) tenant: [u8; 8],
}

/// Tokens of one session.
#[derive(Clone, Default)]
pub(crate) struct TokenSet {
    held: Vec<Held>,
    /// Whose tokens had to go because there were too many. `None` stands for anybody.
    dropped: Vec<Option<Issuer>>,
}

#[derive(Clone)]
struct Held {
    text: HeaderValue,
    /// `None` for a version that this release can't read.
    said: Option<Peeked>,
}

impl Held {
    fn read(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let said = match Token::peek(text) {
            Ok(peeked) => Some(peeked),
            // A newer server's. Servers know what it means; what is no text of a token at all is nobody's.
            Err(TokenError::UnsupportedVersion) if text != wire::UNKNOWN_TOKEN => None,
            Err(_) => return None,
        };
        let mut text = value.clone();
        // Not for logs, and not for the table of a compressed connection.
        text.set_sensitive(true);
        Some(Self { text, said })
    }

    fn issuer(&self) -> Option<Issuer> {
        self.said.as_ref().map(|said| Issuer { key: said.key, tenant: said.tenant })
    }

    /// Whether this requires whatever `other` requires.
    fn contains(&self, other: &Self) -> bool {
        let (Some(own), Some(other)) = (&self.said, &other.said) else { return false };
        let (own, other) = (&own.token, &other.token);
        // A write that is on its way is over some time after its token was issued: the younger one holds for longer.
        let outlasts = !other.marks.is_pending() || own.issued_at >= other.issued_at;
        outlasts && own.marks.covers(&other.marks)
    }

    fn is_same_session(&self, other: &Self) -> bool {
        let session = |held: &Self| held.said.as_ref().map(|said| said.token.session);
        self.issuer() == other.issuer() && session(self) == session(other)
    }

    /// Whether this token answers a request that carried `sent`, and so takes its place.
    ///
    /// A server joins what it is sent into what it answers. It could read what it signs itself, also where the answer is
    /// smaller: once a loss has been acknowledged, or the end of an epoch is known. From others, it counts what is seen
    /// to be contained.
    fn replaces(&self, sent: &Self) -> bool {
        self.issuer() == sent.issuer() || self.contains(sent)
    }

    /// What goes first when there are too many: the oldest, and writes that are on their way last, since a server that
    /// finds out the rest for itself may look before they have landed.
    fn worth(&self) -> (bool, u32) {
        self.said.as_ref().map_or((false, 0), |said| (said.token.marks.is_pending(), said.token.issued_at))
    }
}

impl TokenSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.dropped.is_empty()
    }

    /// Whether this is a token, as far as can be seen without a key.
    pub(crate) fn reads(value: &HeaderValue) -> bool {
        Held::read(value).is_some_and(|held| held.issuer().is_some())
    }

    pub(crate) fn dropped(&self) -> &[Option<Issuer>] {
        &self.dropped
    }

    /// The tokens, the one whose session the server goes on with first.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &HeaderValue> {
        self.held.iter().map(|held| &held.text)
    }

    /// What a request carries.
    pub(crate) fn values(&self) -> Values {
        let missing = (!self.dropped.is_empty()).then(|| HeaderValue::from_static(wire::UNKNOWN_TOKEN));
        self.texts().cloned().chain(missing).collect()
    }

    /// Adds a token that answers a request which carried `sent`. Returns whether anything has changed.
    pub(crate) fn add(&mut self, value: &HeaderValue, sent: &[HeaderValue]) -> bool {
        let Some(new) = Held::read(value) else {
            tracing::debug!("a token that can't be read was ignored");
            return false;
        };
        let mut changed = self.settle(&new, sent);
        let known = self.held.iter().any(|held| held.text == new.text);
        // The place of what it replaces: the first token's session is the one that the server goes on with.
        let mut place = None;
        let mut index = 0;
        self.held.retain(|held| {
            let gone = held.text != new.text && sent.contains(&held.text) && new.replaces(held);
            place = place.or(gone.then_some(index));
            index += usize::from(!gone);
            !gone
        });
        changed |= place.is_some();
        if known || self.held.iter().any(|held| held.is_same_session(&new) && held.contains(&new)) {
            return changed;
        }
        let mut index = 0;
        self.held.retain(|held| {
            let gone = held.is_same_session(&new) && new.contains(held);
            place = place.or(gone.then_some(index));
            index += usize::from(!gone);
            !gone
        });
        self.held.insert(place.unwrap_or(self.held.len()).min(self.held.len()), new);
        self.shrink();
        true
    }

    /// Adds what another set holds.
    pub(crate) fn join(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for held in &other.held {
            changed |= self.add(&held.text, &[]);
        }
        for issuer in &other.dropped {
            changed |= self.drop_of(*issuer);
        }
        changed
    }

    /// Remembers that a token of this issuer is missing.
    pub(crate) fn drop_of(&mut self, issuer: Option<Issuer>) -> bool {
        if self.dropped.contains(&issuer) || self.dropped.len() >= MAX_DROPPED && self.dropped.contains(&None) {
            return false;
        }
        if self.dropped.len() < MAX_DROPPED {
            self.dropped.push(issuer);
        } else if let Some(last) = self.dropped.last_mut() {
            *last = None;
        }
        true
    }

    /// A server that was told that something is missing has answered: what it signs contains it from now on.
    fn settle(&mut self, new: &Held, sent: &[HeaderValue]) -> bool {
        if new.issuer().is_none() || !sent.iter().any(|value| value == wire::UNKNOWN_TOKEN) {
            return false;
        }
        let before = self.dropped.len();
        self.dropped.retain(|issuer| *issuer != new.issuer());
        before != self.dropped.len()
    }

    /// None of them is contained in another, so whichever goes is missing: the oldest, and servers are told.
    fn shrink(&mut self) {
        while self.held.len() > MAX_HELD {
            let oldest = self.held.iter().enumerate().min_by_key(|(_, held)| held.worth());
            let Some((oldest, _)) = oldest else { return };
            let gone = self.held.remove(oldest);
            self.drop_of(gone.issuer());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ryw_core::{ClusterId, Epoch, Key, Keyring, Mark, Marks, Position, SubjectKey, Tenant};

    use super::*;

    fn token(key: u8, session: u8, issued_at: u32, marks: Marks) -> HeaderValue {
        let keys = Keyring::new(Key::new(key, &[key; 32]).unwrap());
        let token = Token { session: SubjectKey::from_bytes([session; 16]), issued_at, marks };
        HeaderValue::from_str(&token.seal(&keys, &Tenant::default())).unwrap()
    }

    fn at(cluster: u64, epoch: u32, offset: u64) -> Mark {
        Mark::At(Position::new(ClusterId::new(cluster), Epoch::new(epoch), offset))
    }

    fn marks<const N: usize>(marks: [Mark; N]) -> Marks {
        marks.into_iter().collect()
    }

    fn set(tokens: &[&HeaderValue]) -> TokenSet {
        let mut set = TokenSet::default();
        for token in tokens {
            set.add(token, &[]);
        }
        set
    }

    #[track_caller]
    fn check(set: &TokenSet, expected: &[&HeaderValue]) {
        assert_eq!(set.texts().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_another_contains_goes_in_any_order() {
        let [low, high] = [10, 20].map(|offset| token(1, 1, 5, marks([at(1, 1, offset)])));
        let other = token(1, 1, 5, marks([at(2, 1, 1)]));
        check(&set(&[&low, &high]), &[&high]);
        check(&set(&[&high, &low]), &[&high]);
        check(&set(&[&low, &other, &high]), &[&high, &other]);
        check(&set(&[&other, &other]), &[&other]);
    }

    #[test]
    fn a_write_on_its_way_is_kept_for_as_long_as_the_youngest_says() {
        let [old, young] = [5, 6].map(|issued_at| token(1, 1, issued_at, Marks::pending()));
        check(&set(&[&old, &young]), &[&young]);
        check(&set(&[&young, &old]), &[&young]);
        let landed = token(1, 1, 7, marks([at(1, 1, 9)]));
        check(&set(&[&young, &landed]), &[&young, &landed]);
    }

    #[test]
    fn sessions_and_issuers_are_kept_apart_until_a_server_has_joined_them() {
        let a = token(1, 1, 5, marks([at(1, 1, 10)]));
        let other_session = token(1, 2, 5, marks([at(1, 1, 20)]));
        let other_key = token(2, 1, 5, marks([at(1, 1, 5)]));
        let mut held = set(&[&a, &other_session, &other_key]);
        check(&held, &[&a, &other_session, &other_key]);

        let sent = held.values();
        let answer = token(1, 1, 6, marks([at(1, 1, 30)]));
        held.add(&answer, &sent);
        check(&held, &[&answer]);
    }

    #[test]
    fn an_answer_leaves_what_it_was_not_sent_and_what_another_issuer_says_more() {
        let a = token(1, 1, 5, marks([at(1, 1, 10)]));
        let mut held = set(&[&a]);
        let sent = held.values();
        let meanwhile = token(1, 2, 5, marks([at(1, 1, 15)]));
        let elsewhere = token(2, 1, 5, marks([at(2, 1, 10)]));
        held.add(&meanwhile, &[]);
        held.add(&elsewhere, &[]);
        let mut sent_both = sent.clone();
        sent_both.push(elsewhere.clone());
        let answer = token(1, 1, 6, marks([at(1, 1, 30)]));
        held.add(&answer, &sent_both);
        check(&held, &[&answer, &meanwhile, &elsewhere]);
    }

    /// An acknowledged loss: what did not survive is in no answer any more.
    #[test]
    fn a_servers_own_answer_may_be_smaller() {
        let dead = token(1, 1, 5, marks([at(1, 1, 10)]));
        let mut held = set(&[&dead]);
        let sent = held.values();
        let answer = token(1, 1, 6, marks([at(1, 2, 3)]));
        assert!(held.add(&answer, &sent));
        check(&held, &[&answer]);
    }

    #[test]
    fn more_than_fit_make_the_session_unknown_until_their_issuer_has_answered() {
        let tokens: Vec<_> = (0..9).map(|n: u8| token(1 + n % 2, n, n.into(), marks([at(n.into(), 1, 1)]))).collect();
        let mut held = set(&tokens.iter().collect::<Vec<_>>());
        assert_eq!(held.held.len(), MAX_HELD);
        let sent = held.values();
        assert_eq!(sent.len(), wire::MAX_TOKENS);
        assert_eq!(sent.last().unwrap(), wire::UNKNOWN_TOKEN);
        assert!(!sent.contains(&tokens[0]) && !sent.contains(&tokens[1]), "the oldest go");

        let [first, second] = [1, 2].map(|key| token(key, 0, 50, marks([at(1, 1, 1)])));
        held.add(&first, &[]);
        assert_eq!(held.values().last().unwrap(), wire::UNKNOWN_TOKEN, "that one was not told");
        held.add(&first, &sent);
        assert_eq!(held.values().last().unwrap(), wire::UNKNOWN_TOKEN, "the other issuer's is still missing");
        held.add(&second, &sent);
        assert!(held.dropped.is_empty());
    }

    #[test]
    fn what_is_missing_of_many_issuers_is_bounded_and_stays() {
        let mut held = TokenSet::default();
        for key in 0..50 {
            held.drop_of(Some(Issuer { key, tenant: [0; 8] }));
        }
        assert_eq!(held.dropped.len(), MAX_DROPPED);
        assert_eq!(held.dropped.last(), Some(&None));
    }

    #[test]
    fn a_newer_version_is_carried_and_nonsense_is_not() {
        // Version 2 and some bytes, in base64url.
        let [newer, newest] = ["AgECAwQFBgcICQ", "AgECAwQFBgcICg"].map(HeaderValue::from_static);
        let mut held = set(&[&newer]);
        check(&held, &[&newer]);
        let sent = held.values();
        held.add(&newest, &sent);
        check(&held, &[&newest]);
        let oversized = HeaderValue::from_str(&"A".repeat(wire::MAX_TOKEN_LEN + 1)).unwrap();
        for nonsense in ["", "no token!", "AQ", wire::UNKNOWN_TOKEN, "a, b"].map(HeaderValue::from_static) {
            assert!(!held.add(&nonsense, &[]), "{nonsense:?}");
        }
        assert!(!held.add(&oversized, &[]) && !held.add(&HeaderValue::from_bytes(&[0xff]).unwrap(), &[]));
        check(&held, &[&newest]);
    }

    proptest! {
        /// Whatever arrives in whatever order: what the set says, *unknown* included, contains it.
        #[test]
        fn nothing_is_ever_lost(
            arrivals in prop::collection::vec((1u8..3, 0u8..3, 0u32..9, 0u64..3, 1u32..3, 0u64..9, any::<bool>()), 0..30),
        ) {
            let mut held = TokenSet::default();
            let mut all = Marks::none();
            for (key, session, issued_at, cluster, epoch, offset, pending) in arrivals {
                let mut said = marks([at(cluster, epoch, offset)]);
                if pending { said.join(&Marks::pending()); }
                all.join(&said);
                held.add(&token(key, session, issued_at, said), &[]);
                prop_assert!(held.held.len() <= MAX_HELD);
            }
            let mut sent = Marks::none();
            for one in &held.held {
                sent.join(&one.said.as_ref().unwrap().token.marks);
            }
            prop_assert!(!held.dropped.is_empty() || sent.covers(&all));
            for (i, one) in held.held.iter().enumerate() {
                for (j, other) in held.held.iter().enumerate() {
                    prop_assert!(i == j || !one.is_same_session(other) || !one.contains(other));
                }
            }
        }
    }
}
