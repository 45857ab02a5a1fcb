//! Which of the headers that the layer looks at a request has: found in one pass over their names. Most requests have none
//! of them, and to look each one up would hash ten names.

use http::{HeaderMap, HeaderValue};

/// A set of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Present(u16);

impl Present {
    pub(crate) const SESSION_ID: Self = Self(1);
    pub(crate) const CONSISTENCY_LEVEL: Self = Self(1 << 1);
    pub(crate) const TOKEN: Self = Self(1 << 2);
    pub(crate) const LOST: Self = Self(1 << 3);
    pub(crate) const COOKIE: Self = Self(1 << 4);
    pub(crate) const BAGGAGE: Self = Self(1 << 5);
    pub(crate) const LAST_EVENT_ID: Self = Self(1 << 6);
    pub(crate) const CONTENT_TYPE: Self = Self(1 << 7);
    /// What only a response may say.
    pub(crate) const ANSWERS: Self = Self(1 << 8);
    pub(crate) const CONNECTION: Self = Self(1 << 9);
    /// More than one value that names the session.
    pub(crate) const SESSION_IDS: Self = Self(1 << 10);

    /// Those of a request, and what names its session: nearly every request that is not passed through has that.
    pub(crate) fn of(headers: &HeaderMap) -> (Self, Option<&HeaderValue>) {
        let mut session = None;
        let found = headers.iter().map(|(name, value)| match name.as_str() {
            "x-session-id" if session.is_some() => Self::SESSION_IDS,
            "x-session-id" => {
                session = Some(value);
                Self::SESSION_ID
            }
            "x-consistency-level" => Self::CONSISTENCY_LEVEL,
            "ryw-token" => Self::TOKEN,
            "ryw-lost" => Self::LOST,
            "cookie" => Self::COOKIE,
            "baggage" => Self::BAGGAGE,
            "last-event-id" => Self::LAST_EVENT_ID,
            "content-type" => Self::CONTENT_TYPE,
            "connection" => Self::CONNECTION,
            "ryw-route" | "x-consistency-enforced" => Self::ANSWERS,
            _ => Self(0),
        });
        (Self(found.fold(0, |all, Self(one)| all | one)), session)
    }

    /// Nothing that tells who asks, or at which level.
    pub(crate) const fn tells_nothing(self) -> bool {
        self.0 & !(Self::CONTENT_TYPE.0 | Self::ANSWERS.0 | Self::CONNECTION.0) == 0
    }

    /// One of the fields that tokens come in.
    pub(crate) const fn brings_fields(self) -> bool {
        self.0 & (Self::TOKEN.0 | Self::BAGGAGE.0 | Self::LAST_EVENT_ID.0) != 0
    }

    pub(crate) const fn has(self, Self(one): Self) -> bool {
        self.0 & one != 0
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, header};
    use ryw_core::wire;

    use super::*;

    #[test]
    fn each_is_found_among_others_and_alone() {
        let cases: [(&HeaderName, Present); 11] = [
            (&wire::SESSION_ID, Present::SESSION_ID),
            (&wire::CONSISTENCY_LEVEL, Present::CONSISTENCY_LEVEL),
            (&wire::TOKEN, Present::TOKEN),
            (&wire::LOST, Present::LOST),
            (&header::COOKIE, Present::COOKIE),
            (&HeaderName::from_static("baggage"), Present::BAGGAGE),
            (&HeaderName::from_static("last-event-id"), Present::LAST_EVENT_ID),
            (&header::CONTENT_TYPE, Present::CONTENT_TYPE),
            (&header::CONNECTION, Present::CONNECTION),
            (&wire::ROUTE, Present::ANSWERS),
            (&wire::CONSISTENCY_ENFORCED, Present::ANSWERS),
        ];
        let mut all = HeaderMap::new();
        all.insert(header::HOST, HeaderValue::from_static("notes.example"));
        assert!(Present::of(&all) == (Present(0), None) && Present(0).tells_nothing());
        for (name, expected) in cases {
            let mut alone = HeaderMap::new();
            let value = HeaderValue::from_static("a");
            let session = (expected == Present::SESSION_ID).then_some(&value);
            alone.append(name, value.clone());
            assert_eq!(Present::of(&alone), (expected, session), "{name}");
            alone.append(name, HeaderValue::from_static("b"));
            let several = session.map_or(Present(0), |_| Present::SESSION_IDS);
            assert_eq!(Present::of(&alone), (Present(expected.0 | several.0), session), "{name}");
            assert_eq!(
                expected.tells_nothing(),
                matches!(expected, Present::CONTENT_TYPE | Present::ANSWERS | Present::CONNECTION),
                "{name}"
            );
            all.insert(name, HeaderValue::from_static("a"));
            assert!(Present::of(&all).0.has(expected), "{name}");
        }
        assert_eq!(Present::of(&all).0, Present((1 << 10) - 1));
    }
}
