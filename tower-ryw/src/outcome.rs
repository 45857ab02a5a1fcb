//! Stage 5: did it write?
//!
//! Three answers, not two. Pure.

use http::{HeaderName, HeaderValue, Response, StatusCode};
pub(crate) use ryw_core::Outcome;
use ryw_core::seeded::{Bug, is_on};

use crate::{policy::Intent, problem::Protocol};

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What the handler itself has said about its writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    #[default]
    Nothing,
    Written,
    NotWritten,
}

/// The outcome of a request that was answered.
pub(crate) fn outcome<B>(intent: Intent, told: Told, response: &Response<B>) -> Outcome {
    match (told, intent) {
        (Told::NotWritten, _) | (Told::Nothing, Intent::Read) => return Outcome::NotWritten,
        (Told::Written, _) | (Told::Nothing, Intent::Write) => {}
    }
    // A gRPC response of headers only. With a body the status comes after it, and success is the safe guess.
    let grpc = response.headers().get(&GRPC_STATUS).map(HeaderValue::as_bytes);
    let answered = Outcome::of_write(response.status(), grpc);
    let answered = if is_on(Bug::ErrNoMark) && answered == Outcome::Unknown { Outcome::NotWritten } else { answered };
    match answered {
        // A handler that wrote and then failed has said nothing about its commit.
        Outcome::NotWritten if told == Told::Written => Outcome::Committed,
        answered => answered,
    }
}

/// Whether an answer says that the request failed, or that nobody knows what it did. Only gRPC has a status besides HTTP's.
pub(crate) fn is_failure<B>(protocol: Protocol, response: &Response<B>) -> bool {
    let grpc = if protocol == Protocol::Grpc { response.headers().get(&GRPC_STATUS) } else { None };
    Outcome::of_write(response.status(), grpc.map(HeaderValue::as_bytes)) == Outcome::Unknown
}

/// Whether the service has not looked at the request's data at all, so that there is nothing to say of its level.
pub(crate) fn is_turned_away<B>(response: &Response<B>) -> bool {
    matches!(
        response.status(),
        StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
}

/// Whether a write was turned down because somebody else had written first.
pub(crate) fn is_conflict<B>(response: &Response<B>) -> bool {
    let aborted = response.headers().get(&GRPC_STATUS).is_some_and(|status| status.as_bytes() == b"10");
    aborted || matches!(response.status(), StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED)
}

/// The outcome of a request that ended without an answer: an error, a panic, a client that left.
pub(crate) fn unanswered(intent: Intent, told: Told) -> Outcome {
    match (told, intent) {
        (Told::NotWritten, _) | (Told::Nothing, Intent::Read) => Outcome::NotWritten,
        (Told::Written, _) | (Told::Nothing, Intent::Write) => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(intent: Intent, told: Told, status: u16, grpc: Option<&'static str>, expected: Outcome) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(code) = grpc {
            response.headers_mut().insert("grpc-status", code.parse().unwrap());
        }
        assert_eq!(outcome(intent, told, &response), expected, "{intent:?} {told:?} {status} {grpc:?}");
    }

    #[test]
    fn answered() {
        use Outcome::*;
        for (status, expected) in [
            (200, Committed),
            (201, Committed),
            (204, Committed),
            (302, Committed),
            (303, Committed),
            (101, Committed),
            (400, NotWritten),
            (404, NotWritten),
            (409, NotWritten),
            (422, NotWritten),
            (499, NotWritten),
            (408, Unknown),
            (500, Unknown),
            (502, Unknown),
            (503, Unknown),
            (504, Unknown),
            (599, Unknown),
            (700, Unknown),
        ] {
            check(Intent::Write, Told::Nothing, status, None, expected);
            check(Intent::Read, Told::Nothing, status, None, NotWritten);
            check(Intent::Write, Told::NotWritten, status, None, NotWritten);
        }
        check(Intent::Read, Told::Written, 200, None, Committed);
        check(Intent::Read, Told::Written, 404, None, Committed);
        check(Intent::Read, Told::Written, 500, None, Unknown);
    }

    #[test]
    fn answered_by_grpc() {
        use Outcome::*;
        for (code, expected) in [
            ("0", Committed),
            ("3", NotWritten),
            ("5", NotWritten),
            ("16", NotWritten),
            ("1", Unknown),
            ("2", Unknown),
            ("4", Unknown),
            ("10", Unknown),
            ("13", Unknown),
            ("14", Unknown),
            ("15", Unknown),
            ("nonsense", Unknown),
        ] {
            check(Intent::Write, Told::Nothing, 200, Some(code), expected);
        }
    }

    #[test]
    fn without_an_answer_a_write_is_unknown() {
        assert_eq!(unanswered(Intent::Write, Told::Nothing), Outcome::Unknown);
        assert_eq!(unanswered(Intent::Read, Told::Written), Outcome::Unknown);
        assert_eq!(unanswered(Intent::Read, Told::Nothing), Outcome::NotWritten);
        assert_eq!(unanswered(Intent::Write, Told::NotWritten), Outcome::NotWritten);
    }
}
