//! When a read that was answered with *behind* is asked again.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode, Uri, header};

/// Whether and for how long reads are asked again when no node was fresh enough for them.
///
/// Such an answer is a 503 with `Retry-After`, a 412 to a request that set no condition itself, or gRPC's `UNAVAILABLE` as
/// the whole response. Only safe requests are asked again: GET, HEAD, OPTIONS, TRACE and QUERY, and what
/// [`reads`](Self::reads) names; and only when their body can be sent again (see [`RetryBody`](crate::RetryBody)).
///
/// `Retry-After` is waited for, with up to a tenth more so that callers spread; without it 50 ms, doubled with each
/// retry. An answer that asks to wait beyond the [deadline](Self::deadline) is handed to the caller at once, as is the last
/// one. An attempt itself is not cut short: for that, put a timeout around the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retry {
    pub(crate) limit: u32,
    pub(crate) deadline: Duration,
    reserve: u32,
    percent: u32,
    reads: Vec<String>,
}

impl Retry {
    /// At most 3 retries, within 5 s.
    pub const fn new() -> Self {
        Self { limit: 3, deadline: Duration::from_secs(5), reserve: 10, percent: 20, reads: Vec::new() }
    }

    /// No retries.
    pub const fn never() -> Self {
        Self::new().limit(0)
    }

    /// How often one request is asked again. Default: 3.
    pub const fn limit(mut self, retries: u32) -> Self {
        self.limit = retries;
        self
    }

    /// How long after the first attempt began the last one may begin. Default: 5 s.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many retries all requests through one layer may make together: at first `reserve`, and for each request that is
    /// made so many hundredths of a retry more, up to `reserve` again. So an overloaded service is not asked several
    /// times as often as usual. Both count up to 10 000. Default: 10, and 20 hundredths.
    pub const fn budget(mut self, reserve: u32, percent: u32) -> Self {
        self.reserve = if reserve < 10_000 { reserve } else { 10_000 };
        self.percent = if percent < 10_000 { percent } else { 10_000 };
        self
    }

    /// Requests to this path are reads, whatever their method: for gRPC, GraphQL and searches by POST. A path that ends in
    /// `*` names all with that beginning. May be called repeatedly. Default: none.
    pub fn reads(mut self, path: impl Into<String>) -> Self {
        self.reads.push(path.into());
        self
    }

    pub(crate) fn is_safe(&self, method: &Method, uri: &Uri) -> bool {
        let reads = |rule: &String| match rule.strip_suffix('*') {
            Some(prefix) => uri.path().starts_with(prefix),
            None => uri.path() == rule,
        };
        // Not only `is_safe`, which does not know QUERY (RFC 10008).
        method.is_safe() || method.as_str() == "QUERY" || self.reads.iter().any(reads)
    }

    /// How long to wait before asking again; `retries` have been made already.
    pub(crate) fn pause(behind: Behind, retries: u32) -> Duration {
        let pause = behind.after.unwrap_or(Duration::from_millis(50) * (1 << retries.min(10)));
        pause.saturating_add(pause.min(Duration::from_secs(60)).mul_f64(fastrand::f64() / 10.0))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

/// No node is fresh enough for the request yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    /// When the server says to ask again.
    after: Option<Duration>,
}

impl Behind {
    pub(crate) fn of(request: &HeaderMap, status: StatusCode, response: &HeaderMap) -> Option<Self> {
        const CONDITIONS: [header::HeaderName; 4] =
            [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
        let after = response.get(header::RETRY_AFTER);
        let behind = match status {
            StatusCode::SERVICE_UNAVAILABLE => after.is_some(),
            // The answer of a server that is like Vault; or the caller's own condition does not hold.
            StatusCode::PRECONDITION_FAILED => CONDITIONS.iter().all(|name| !request.contains_key(name)),
            // Only as the whole response: after messages it is something else.
            StatusCode::OK => response.get("grpc-status").is_some_and(|status| status == "14"),
            _ => false,
        };
        // A date would need a clock that agrees with the server's.
        let seconds = after.and_then(|value| value.to_str().ok()?.parse().ok());
        behind.then_some(Self { after: seconds.map(Duration::from_secs) })
    }
}

/// What all requests of one layer may spend on retries together.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In hundredths of a retry.
    left: AtomicU32,
    most: u32,
    gain: u32,
}

impl Budget {
    pub(crate) const fn new(retry: &Retry) -> Self {
        let most = retry.reserve * 100;
        Self { left: AtomicU32::new(most), most, gain: retry.percent }
    }

    /// A request is made for the first time.
    pub(crate) fn earn(&self) {
        // A full budget is the usual case and need not be written.
        if self.left.load(Relaxed) < self.most {
            let _ = self.left.fetch_update(Relaxed, Relaxed, |left| Some((left + self.gain).min(self.most)));
        }
    }

    /// Whether one more retry may be made.
    pub(crate) fn spend(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(100)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_is_behind() {
        let secs = |secs| Some(Behind { after: Some(Duration::from_secs(secs)) });
        let none = Some(Behind { after: None });
        for (request, status, response, expected) in [
            (&[][..], 503, &[("retry-after", "2")][..], secs(2)),
            (&[], 503, &[("retry-after", "99999999")], secs(99_999_999)),
            (&[], 503, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], none),
            (&[], 503, &[("retry-after", "-1")], none),
            (&[], 503, &[], None),
            (&[], 429, &[("retry-after", "2")], None),
            (&[], 409, &[("ryw-lost", "?1;epoch=2;was=1"), ("retry-after", "1")], None),
            (&[], 412, &[], none),
            (&[("if-match", "\"a\"")], 412, &[], None),
            (&[], 200, &[("grpc-status", "14"), ("retry-after", "1")], secs(1)),
            (&[], 200, &[("grpc-status", "9")], None),
            (&[], 200, &[("retry-after", "1")], None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Behind::of(&headers(request), status, &headers(response)), expected, "{status} {response:?}");
        }
    }

    #[test]
    fn what_is_safe() {
        let retry = Retry::new().reads("/pkg.Notes/Get").reads("/search/*");
        for (method, path, safe) in [
            ("GET", "/", true),
            ("HEAD", "/", true),
            ("OPTIONS", "/", true),
            ("QUERY", "/", true),
            ("POST", "/", false),
            ("PUT", "/", false),
            ("DELETE", "/", false),
            ("PATCH", "/", false),
            ("BREW", "/", false),
            ("POST", "/pkg.Notes/Get", true),
            ("POST", "/pkg.Notes/GetAndSet", false),
            ("POST", "/search/notes", true),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(retry.is_safe(&method, &Uri::from_static(path)), safe, "{method} {path}");
        }
    }

    #[test]
    fn pauses_grow_and_overflow_nothing() {
        let none = Behind { after: None };
        assert!(Retry::pause(none, 0) >= Duration::from_millis(50));
        assert!(Retry::pause(none, 2) >= Duration::from_millis(200));
        assert!(Retry::pause(none, u32::MAX) < Duration::from_secs(60));
        let endless = Behind { after: Some(Duration::from_secs(u64::MAX)) };
        assert!(Retry::pause(endless, 0) >= Duration::from_secs(u64::MAX));
    }

    #[test]
    fn a_budget_is_a_share_of_the_requests() {
        let budget = Budget::new(&Retry::new().budget(2, 50));
        assert!(budget.spend() && budget.spend() && !budget.spend());
        budget.earn();
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..100).for_each(|_| budget.earn());
        assert!(budget.spend() && budget.spend() && !budget.spend(), "no more than the reserve is saved up");
    }
}
