//! What became of a request on its way.

use std::time::Duration;

/// What a [`RywClientLayer`](crate::RywClientLayer) did for a request: an extension of the response.
///
/// Which node served it, and whether the level that was asked for was achieved, the response says itself, in `Ryw-Route` and
/// `X-Consistency-Enforced`.
///
/// ```
/// # fn example(response: http::Response<()>) {
/// use ryw_client::Report;
///
/// if let Some(report) = response.extensions().get::<Report>() {
///     println!("{} attempts, {:?} between them", report.attempts, report.waited);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many requests were made, redirects included; at least 1.
    pub attempts: u32,
    /// How many redirects were followed.
    pub redirects: u32,
    /// How long was waited between attempts because no node was fresh enough.
    pub waited: Duration,
    /// Whether the host that answered was told the session.
    pub told: bool,
    /// How many tokens it was told.
    pub tokens: usize,
    /// Why an answer that no node is fresh enough was not followed by another attempt.
    pub gave_up: Option<GaveUp>,
}

/// Why a request was not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// It may write.
    Unsafe,
    /// Its body can't be sent again.
    Body,
    /// It has been retried often enough.
    Limit,
    /// The server asks to wait beyond the deadline.
    Deadline,
    /// All requests together have been retried often enough.
    Budget,
}
