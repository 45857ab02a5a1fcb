//! Answers that the layer gives itself: RFC 9457 problem details, or a gRPC status.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ryw_core::{Lost, Reason, wire};

/// A response body that can be made from bytes, so that a refusal can say what is wrong.
///
/// Implemented for [`Full`](http_body_util::Full), for axum's body (feature `axum`) and for tonic's (feature
/// `tonic`). For a body of your own, wrap the bytes in whatever your service answers with.
pub trait AnswerBody {
    /// A body with exactly these bytes.
    fn answer(bytes: Bytes) -> Self;
}

impl AnswerBody for Bytes {
    fn answer(bytes: Bytes) -> Self {
        bytes
    }
}

impl AnswerBody for String {
    fn answer(bytes: Bytes) -> Self {
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl AnswerBody for http_body_util::Full<Bytes> {
    fn answer(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl AnswerBody for axum_core::body::Body {
    fn answer(bytes: Bytes) -> Self {
        bytes.into()
    }
}

#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl AnswerBody for tonic::body::Body {
    fn answer(bytes: Bytes) -> Self {
        Self::new(http_body_util::Full::new(bytes))
    }
}

/// Why a request is answered by the layer and not by the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request can't be understood.
    BadRequest { detail: String },
    /// Nothing that may serve this request is fresh enough or reachable.
    Behind { reason: Reason, retry_after: Duration },
    /// The write can't be announced to the other instances.
    NotAnnounced { retry_after: Duration },
    /// The write would follow something that did not survive a failover, and its client does not know that yet.
    Lost(Lost),
}

/// How refusals are written down for the client that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

const GRPC_INVALID_ARGUMENT: u16 = 3;
const GRPC_FAILED_PRECONDITION: u16 = 9;
const GRPC_UNAVAILABLE: u16 = 14;

impl Refusal {
    /// Why nothing could serve, where that was the trouble.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Behind { reason, .. } => Some(*reason),
            Self::Lost(_) => Some(Reason::Lost),
            Self::NotAnnounced { .. } => Some(Reason::StoreUnavailable),
            Self::BadRequest { .. } => None,
        }
    }
}

impl Protocol {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let grpc =
            headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Http }
    }
}

impl Refusal {
    /// Nothing can serve this read now.
    pub(crate) fn behind(reason: Reason) -> Self {
        Self::Behind { reason, retry_after: Duration::from_secs(1) }
    }

    /// The mark store does not take that there is going to be a write.
    pub(crate) fn not_announced() -> Self {
        Self::NotAnnounced { retry_after: Duration::from_secs(1) }
    }

    /// What is wrong and what to do, for the client.
    pub(crate) fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::BadRequest { detail } => detail.into(),
            Self::Behind { reason, .. } => explain(*reason).into(),
            Self::NotAnnounced { .. } => NOT_ANNOUNCED.into(),
            Self::Lost(lost) => format!("{LOST}={}", lost.epoch.get()).into(),
        }
    }

    pub(crate) fn response<B: AnswerBody>(&self, protocol: Protocol) -> Response<B> {
        let detail = self.detail();
        let (status, title, grpc) = match self {
            Self::BadRequest { .. } => (StatusCode::BAD_REQUEST, "Bad request", GRPC_INVALID_ARGUMENT),
            Self::Behind { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Not fresh enough yet", GRPC_UNAVAILABLE),
            Self::NotAnnounced { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Write not accepted", GRPC_UNAVAILABLE),
            Self::Lost(_) => (StatusCode::CONFLICT, "Earlier work is lost", GRPC_FAILED_PRECONDITION),
        };
        let mut response = match protocol {
            Protocol::Http => {
                let problem = serde_json::json!({
                    "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
                });
                let mut response = Response::new(B::answer(problem.to_string().into()));
                *response.status_mut() = status;
                let json = HeaderValue::from_static("application/problem+json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            // A response of headers only; `grpc-message` is percent-encoded ASCII.
            Protocol::Grpc => {
                let mut response = Response::new(B::answer(Bytes::new()));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", grpc.into());
                if let Ok(message) = HeaderValue::from_str(&percent_encode(&detail)) {
                    headers.insert("grpc-message", message);
                }
                response
            }
        };
        if let Self::Behind { retry_after, .. } | Self::NotAnnounced { retry_after } = self {
            let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        if let Some(reason) = self.reason() {
            response.headers_mut().insert(&wire::CONSISTENCY_ENFORCED, HeaderValue::from_static("false"));
            // Nobody has served it.
            if let Ok(route) = HeaderValue::try_from(format!("none;reason={}", reason.word())) {
                response.headers_mut().insert(&wire::ROUTE, route);
            }
        }
        if let Self::Lost(lost) = self {
            response.headers_mut().insert(&wire::LOST, lost.header_value());
        }
        response
    }
}

const NOT_ANNOUNCED: &str =
    "other instances can't be told of this write, so it was not made; retry (store-unavailable)";

const LOST: &str = "something that this session has written or seen did not survive a failover; read what is there now, \
                    then repeat the request with the header Ryw-Lost: ack;epoch";

const fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Budget => "no replica is fresh enough, and the primary is busy with reads of this kind; retry (budget)",
        Reason::NoReplica => "no replica and no primary can be reached; retry (no-replica)",
        Reason::Strong => "this level demands the primary, which can't be reached; retry (strong)",
        Reason::PendingWrite => "a write of this session may still be on its way; retry (pending-write)",
        Reason::StoreUnavailable => "it is not known what this session has written; retry (store-unavailable)",
        Reason::UnknownMarks => "it is not known what this session has written; retry (unknown-marks)",
        _ => "no replica is fresh enough; retry (behind)",
    }
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_gets_problem_details() {
        let refusal = Refusal::BadRequest { detail: "a \"quoted\" ü".into() };
        let response: Response<String> = refusal.response(Protocol::Http);
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!((&problem["status"], &problem["detail"]), (&400.into(), &"a \"quoted\" ü".into()));
    }

    #[test]
    fn who_is_refused_is_told_why_and_that_nothing_was_enforced() {
        let lost = Lost { epoch: ryw_core::Epoch::new(2), was: ryw_core::Epoch::new(1) };
        for (refusal, route) in [
            (Refusal::behind(Reason::NoReplica), Some("none;reason=no-replica")),
            (Refusal::not_announced(), Some("none;reason=store-unavailable")),
            (Refusal::Lost(lost), Some("none;reason=lost")),
            (Refusal::BadRequest { detail: String::new() }, None),
        ] {
            for protocol in [Protocol::Http, Protocol::Grpc] {
                let response: Response<String> = refusal.response(protocol);
                let said = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
                assert_eq!((said("ryw-route"), said("x-consistency-enforced")), (route, route.map(|_| "false")));
            }
        }
    }

    #[test]
    fn grpc_gets_a_status() {
        let refusal = Refusal::Behind { reason: Reason::Budget, retry_after: Duration::from_millis(1001) };
        let response: Response<String> = refusal.response(Protocol::Grpc);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert!(response.headers()["grpc-message"].to_str().unwrap().contains("budget"));
        assert_eq!(percent_encode("100% behind\n"), "100%25 behind%0A");
        assert_eq!(response.headers()["retry-after"], "2");
        let response: Response<String> = Refusal::not_announced().response(Protocol::Grpc);
        assert_eq!(
            (&response.headers()["grpc-status"], &response.headers()["retry-after"]),
            (&"14".parse().unwrap(), &"1".parse().unwrap())
        );
    }
}
