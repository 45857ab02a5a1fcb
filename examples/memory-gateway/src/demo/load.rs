//! Sessions that write, read back at once, and read a few times more.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use indicatif::ProgressBar;
use ryw_core::{Keyring, Position, Tenant, Token, wire};
use tokio::{task::JoinSet, time::Instant};
use tower::ServiceExt;

/// Later reads after each write, besides the one at once.
const LATER_READS: u32 = 4;
/// Longest pause before each of them.
const MAX_PAUSE_MS: u64 = 120;

const TENANT: &str = "demo";

/// Drives one service.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) service: Router,
    /// Separates the sessions and keys of this service from those of the others.
    pub(crate) space: &'static str,
    /// Opens the tokens, to know where each write is.
    pub(crate) keys: Keyring,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) reads: Vec<Read>,
    pub(crate) writes: u64,
    pub(crate) errors: u64,
}

/// One read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    pub(crate) stale: bool,
    /// `None` where the service does not tell who served.
    pub(crate) by_replica: Option<bool>,
    /// Where the session's last write is, as its token says.
    pub(crate) mark: Option<Position>,
}

impl Report {
    pub(crate) fn stale(&self) -> u64 {
        u64::try_from(self.reads.iter().filter(|read| read.stale).count()).unwrap_or(u64::MAX)
    }
}

impl Load {
    pub(crate) async fn drive(self, sessions: u16, duration: Duration, progress: Arc<ProgressBar>) -> Report {
        let load = Arc::new(self);
        let end = Instant::now() + duration;
        let mut tasks = JoinSet::new();
        for number in 0..sessions {
            tasks.spawn(Arc::clone(&load).session(number, end, Arc::clone(&progress)));
        }
        let mut report = Report::default();
        while let Some(session) = tasks.join_next().await {
            match session {
                Ok(Report { reads, writes, errors }) => {
                    report.reads.extend(reads);
                    report.writes += writes;
                    report.errors += errors;
                }
                Err(_) => report.errors += 1,
            }
        }
        report
    }

    async fn session(self: Arc<Self>, number: u16, end: Instant, progress: Arc<ProgressBar>) -> Report {
        let session = format!("{}-{number}", self.space.replace(' ', "-"));
        let mut report = Report::default();
        let mut value = 0_u64;
        while Instant::now() < end {
            value += 1;
            let Some(mark) = self.write(&session, value).await else {
                report.errors += 1;
                // A service that fails is not hammered.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            report.writes += 1;
            for read in 0..=LATER_READS {
                if read > 0 {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(..MAX_PAUSE_MS))).await;
                }
                match self.read(&session, value, mark).await {
                    Some(read) => {
                        if read.stale {
                            progress.set_message(format!("stale: {}", self.space));
                        }
                        report.reads.push(read);
                    }
                    None => report.errors += 1,
                }
            }
        }
        report
    }

    /// The outer `None` is a failure; the inner one means that the service tells no position.
    async fn write(&self, session: &str, value: u64) -> Option<Option<Position>> {
        let request = request("PUT", session, Body::from(value.to_string()))?;
        let response = self.service.clone().oneshot(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let tenant: Tenant = TENANT.parse().ok()?;
        let token = response.headers().get(&wire::TOKEN).and_then(|token| token.to_str().ok());
        let token = token.and_then(|token| Token::open(&self.keys, &tenant, token).ok());
        Some(token.and_then(|token| token.marks.positions().last().copied()))
    }

    async fn read(&self, session: &str, expected: u64, mark: Option<Position>) -> Option<Read> {
        let at = Instant::now();
        let request = request("GET", session, Body::empty())?;
        let response = self.service.clone().oneshot(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let found: u64 = match parts.status.as_u16() {
            200 => std::str::from_utf8(&body).ok()?.parse().ok()?,
            404 => 0,
            _ => return None,
        };
        let route = parts.headers.get(&wire::ROUTE).and_then(|route| route.to_str().ok());
        let by_replica = route.map(|route| route.starts_with("replica"));
        Some(Read { at, took: at.elapsed(), stale: found < expected, by_replica, mark })
    }
}

/// Only the header names the session: what is carried along besides would help the layer.
fn request(method: &str, session: &str, body: Body) -> Option<Request<Body>> {
    let request = Request::builder().method(method).uri(format!("/v1/memory/{TENANT}/{session}"));
    request.header(&wire::SESSION_ID, session).body(body).ok()
}
