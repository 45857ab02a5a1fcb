//! A session that goes on after its request: streams of messages, server-sent events, WebSockets.

mod error;
mod message;
mod trailers;

use std::sync::Arc;

use ryw_core::Lost;

use crate::{
    context::RywContext,
    future::{Admitted, prepare},
    lookup,
    policy::Intent,
    trace,
};

pub use error::{StreamError, StreamErrorKind};
pub use message::{Delivered, RywMessage};
pub use trailers::{GrpcTrailers, GrpcTrailersBody, GrpcTrailersFuture, GrpcTrailersLayer};

/// A session that goes on after its request has been answered: gRPC streams, server-sent events, WebSockets.
///
/// A request is decided once. What a stream says an hour later is decided anew, message by message: marks are looked up
/// again, a replica is waited for as the ladder says, and what the message has written is recorded before
/// [`finish`](RywMessage::finish) returns. So send what tells of a write after it.
///
/// ```
/// use tower_ryw::{RywContext, RywStream, StreamError};
///
/// # async fn rename(_: &str) -> Result<(), sqlx::Error> { Ok(()) }
/// # mod sqlx { pub type Error = std::convert::Infallible; }
/// /// One message of a WebSocket, of a gRPC stream, ...
/// async fn on_message(session: &RywStream, name: &str) -> Result<Option<String>, StreamError> {
///     let message = session.write().await?;
///     // The data layer sees this message's route, as it would a request's.
///     let written = message.scope(rename(name)).await;
///     if written.is_err() {
///         // Dropped without `finish`: nobody knows whether it wrote, and its session's reads are careful.
///         return Ok(None);
///     }
///     // Recorded: whoever gets the answer may ask anybody.
///     Ok(message.finish().await.token)
/// }
/// # let _ = |context: RywContext| context.stream();
/// ```
///
/// * **WebSocket**: take the [`RywContext`] of the upgrade request and move `context.stream()` into the task that has the
///   socket. A client that writes elsewhere tells its token in a message, see [`join_token`](Self::join_token).
/// * **Server-sent events**: give each event [`event_id`](Self::event_id) for an `id:`, and set
///   [`RywLayerBuilder::event_ids`](crate::RywLayerBuilder::event_ids), so that a browser that connects again brings it.
/// * **gRPC**: inside of a [`GrpcTrailersLayer`] the trailers carry the token.
///
/// Cheap to clone; all clones are the same session. It holds what the session must see (at most 16 positions), no
/// connection and no task. Messages may be served at the same time.
#[derive(Clone, Debug)]
pub struct RywStream(RywContext);

impl RywContext {
    /// The session of this request, as it goes on after the response.
    #[must_use]
    pub fn stream(&self) -> RywStream {
        self.goes_on();
        RywStream(self.clone())
    }
}

impl RywStream {
    /// A message that only reads, see [`message`](Self::message). One that writes all the same says so with
    /// [`RywContext::mark_written`].
    ///
    /// # Errors
    /// See [`message`](Self::message).
    pub async fn read(&self) -> Result<RywMessage, StreamError> {
        self.message(Intent::Read).await
    }

    /// A message that may write, see [`message`](Self::message).
    ///
    /// # Errors
    /// See [`message`](Self::message).
    pub async fn write(&self) -> Result<RywMessage, StreamError> {
        self.message(Intent::Write).await
    }

    /// Decides where the next message is to be served, at the level of the request: its marks are those of the
    /// stream, of the session in the mark store as of now, and of all that the stream has been told.
    ///
    /// It waits as long as a request would: for the mark store up to its deadline, for a sample of the primary up to its
    /// own, for a replica as the ladder says. When it is dropped meanwhile nothing has happened, but that a strict write
    /// that was announced stays announced until its window is over.
    ///
    /// # Errors
    /// [`StreamError`] when nothing can serve the message now. The next one may be served.
    pub async fn message(&self, intent: Intent) -> Result<RywMessage, StreamError> {
        let span = trace::request();
        let (identity, known) = self.0.ask_again(intent);
        trace::identified(&span, || identity.terms);
        let config = Arc::clone(self.0.config());
        let loaded = lookup::load(&config, &identity);
        let required = lookup::find_out(&config, &identity, loaded).await;
        match prepare(config, identity, required).await {
            Ok(Admitted { scope, announced }) => Ok(RywMessage::new(self.0.clone(), known, scope, announced, span)),
            Err(refusal) => {
                trace::refused(&span, refusal.reason());
                Err(refusal.into())
            }
        }
    }

    /// All that the session must see by now, to be carried by the client or put into a job. `None` as long as there is no
    /// session.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        self.0.token_by_now()
    }

    /// The client has told this token in a message of its own: later messages see what it says. A token that can't be
    /// believed is no error: it is counted, and heeded as one of a request would be (see
    /// [`unproven_reads`](crate::RywLayerBuilder::unproven_reads)). Only this stream learns of it, and the session stays the one of
    /// the request.
    pub fn join_token(&self, token: &str) {
        self.0.was_told(token);
    }

    /// What the session has written or seen and what did not survive a failover, as far as the stream knows by now.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.0.lost_by_now()
    }

    /// The client knows what it has lost, as if the next message came with the bare `Ryw-Lost: ack`.
    pub fn acknowledge_lost(&self) {
        self.0.acknowledge();
    }

    /// The `id:` of a server-sent event: an id of the service's own, which may be empty, and after a semicolon the
    /// session's token, if it has one. Characters that an id can't have (line breaks and NUL) are left out.
    ///
    /// Ask for it once the event's message has been [finished](RywMessage::finish).
    ///
    /// ```
    /// use tower_ryw::RywStream;
    ///
    /// assert_eq!(RywStream::own_event_id("42;AQFs"), "42");
    /// assert_eq!(RywStream::own_event_id("a;b;AQFs"), "a;b");
    /// ```
    #[must_use]
    pub fn event_id(&self, own: &str) -> String {
        let mut id: String = own.chars().filter(|char| !matches!(char, '\r' | '\n' | '\0')).collect();
        id.push(';');
        id.push_str(&self.token().unwrap_or_default());
        id
    }

    /// The service's own id in a `Last-Event-ID`. The token in it has been read by the layer.
    #[must_use]
    pub fn own_event_id(last_event_id: &str) -> &str {
        last_event_id.rsplit_once(';').map_or(last_event_id, |(own, _)| own)
    }

    /// The request that it goes on from.
    #[must_use]
    pub const fn context(&self) -> &RywContext {
        &self.0
    }
}
