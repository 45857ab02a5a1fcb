//! The session as a member of W3C baggage.

use http::{HeaderMap, HeaderName, HeaderValue};
use ryw_core::wire;

static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// Longest baggage that W3C asks everybody to pass on, in bytes.
const MAX_BAGGAGE: usize = 8192;

/// Takes the session out of the baggage; what else is in it stays.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let carries = |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').any(is_ours);
    if !headers.get_all(&BAGGAGE).iter().any(carries) {
        return;
    }
    let kept: Vec<HeaderValue> = headers.get_all(&BAGGAGE).iter().filter_map(without).collect();
    headers.remove(&BAGGAGE);
    for value in kept {
        headers.append(&BAGGAGE, value);
    }
}

/// Adds these tokens to the baggage, as many as fit, instead of what it says of the session now.
pub(crate) fn add(headers: &mut HeaderMap, tokens: &[HeaderValue]) {
    strip(headers);
    let texts: Vec<&str> = tokens.iter().filter_map(|token| token.to_str().ok()).collect();
    let others: usize = headers.get_all(&BAGGAGE).iter().map(|value| value.len() + 1).sum();
    let member = format!("{}={}", wire::BAGGAGE_MEMBER, texts.join("."));
    if !texts.is_empty()
        && others + member.len() <= MAX_BAGGAGE
        && let Ok(mut value) = HeaderValue::try_from(member)
    {
        value.set_sensitive(true);
        headers.append(&BAGGAGE, value);
    }
}

fn is_ours(member: &[u8]) -> bool {
    let key = member.split(|byte| *byte == b'=').next().unwrap_or_default();
    key.trim_ascii() == wire::BAGGAGE_MEMBER.as_bytes()
}

fn without(value: &HeaderValue) -> Option<HeaderValue> {
    let others: Vec<&[u8]> = value.as_bytes().split(|byte| *byte == b',').filter(|member| !is_ours(member)).collect();
    HeaderValue::from_bytes(&others.join(&b","[..])).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baggage(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(&BAGGAGE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    fn with(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (BAGGAGE.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_our_member_goes() {
        for (before, after) in [
            (&["ryw=abc"][..], &[][..]),
            (&["a=1, ryw=abc;p=2 ,b=2"], &["a=1,b=2"]),
            (&["a=1", " ryw =x", "rywx=3"], &["a=1", "rywx=3"]),
            (&["a=ryw"], &["a=ryw"]),
        ] {
            let mut headers = with(before);
            strip(&mut headers);
            assert_eq!(baggage(&headers), after, "{before:?}");
        }
    }

    #[test]
    fn tokens_are_one_member_beside_the_others() {
        let tokens = ["abc", "d-_f"].map(HeaderValue::from_static);
        let mut headers = with(&["a=1,ryw=old"]);
        add(&mut headers, &tokens);
        assert_eq!(baggage(&headers), ["a=1", "ryw=abc.d-_f"]);
        add(&mut headers, &[]);
        assert_eq!(baggage(&headers), ["a=1"]);

        let mut full = HeaderMap::new();
        full.insert(&BAGGAGE, HeaderValue::from_str(&"x".repeat(MAX_BAGGAGE - 5)).unwrap());
        add(&mut full, &tokens);
        assert_eq!(baggage(&full).len(), 1, "it would not be passed on");
    }
}
