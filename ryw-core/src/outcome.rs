//! What an answer says about the write that it answers.

use http::StatusCode;

/// What is known of a request's writes. Three answers, not two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It certainly wrote nothing.
    NotWritten,
    /// Its writes are committed.
    Committed,
    /// Nobody knows: it failed, timed out or was cancelled after it may have written.
    Unknown,
}

/// gRPC codes that a handler gives before it changes anything: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS,
/// PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED.
const GRPC_REFUSALS: [&[u8]; 8] = [b"3", b"5", b"6", b"7", b"9", b"11", b"12", b"16"];

impl Outcome {
    /// Of a write that was answered with this status, and this `grpc-status`, where there is one.
    #[must_use]
    pub fn of_write(status: StatusCode, grpc: Option<&[u8]>) -> Self {
        match grpc {
            Some(b"0") => Self::Committed,
            Some(code) if GRPC_REFUSALS.contains(&code) => Self::NotWritten,
            Some(_) => Self::Unknown,
            None => Self::by_status(status),
        }
    }

    /// Redirects count as success: after POST-redirect-GET the next page must show what was posted.
    fn by_status(status: StatusCode) -> Self {
        match status {
            // Given up while the service was at work.
            StatusCode::REQUEST_TIMEOUT => Self::Unknown,
            _ if status.is_client_error() => Self::NotWritten,
            _ if status.is_success() || status.is_redirection() || status.is_informational() => Self::Committed,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_status_goes_before_that_of_http() {
        use Outcome::{Committed, NotWritten, Unknown};
        for (status, grpc, expected) in [
            (101, None, Committed),
            (200, None, Committed),
            (303, None, Committed),
            (400, None, NotWritten),
            (404, None, NotWritten),
            (408, None, Unknown),
            (500, None, Unknown),
            (503, None, Unknown),
            (999, None, Unknown),
            (200, Some(&b"0"[..]), Committed),
            (200, Some(b"5"), NotWritten),
            (200, Some(b"14"), Unknown),
            (200, Some(b"nonsense"), Unknown),
            (503, Some(b"0"), Committed),
        ] {
            assert_eq!(Outcome::of_write(StatusCode::from_u16(status).unwrap(), grpc), expected, "{status} {grpc:?}");
        }
    }

    #[test]
    fn only_a_code_that_is_given_before_anything_changes_says_that_nothing_was_written() {
        for code in 1..=16 {
            let expected = match code {
                3 | 5 | 6 | 7 | 9 | 11 | 12 | 16 => Outcome::NotWritten,
                _ => Outcome::Unknown,
            };
            assert_eq!(Outcome::of_write(StatusCode::OK, Some(code.to_string().as_bytes())), expected, "{code}");
        }
    }
}
