//! Names and limits on the wire. Every name can be configured; these are the defaults.

use http::HeaderName;

/// Names the session, in requests and responses.
pub static SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
/// Asks for a [`Level`](crate::Level).
pub static CONSISTENCY_LEVEL: HeaderName = HeaderName::from_static("x-consistency-level");
/// Tells whether the level that was asked for was achieved.
pub static CONSISTENCY_ENFORCED: HeaderName = HeaderName::from_static("x-consistency-enforced");
/// Carries a signed [`Token`](crate::Token). Repeatable in a request: all are joined.
pub static TOKEN: HeaderName = HeaderName::from_static("ryw-token");
/// Tells who served a request, and why.
pub static ROUTE: HeaderName = HeaderName::from_static("ryw-route");
/// Tells that an acknowledged write of this session did not survive a failover; in a request, `ack;epoch=2` says that the
/// client knows of the loss that was told with that epoch, and `ack` that it knows what it was told.
pub static LOST: HeaderName = HeaderName::from_static("ryw-lost");
/// Longest list of tokens of one request that a server looks at; more make its marks unknown.
pub const MAX_TOKENS: usize = 8;
/// A value of [`TOKEN`] that is no token, so that it makes the session *unknown*: sent by a client that had more to
/// carry than it could keep.
pub const UNKNOWN_TOKEN: &str = "unknown";
/// The member of W3C baggage that may carry tokens instead of [`TOKEN`]; several are separated by `.`.
pub const BAGGAGE_MEMBER: &str = "ryw";
/// The parameter of a URL's query that carries the token of a link that is shared.
pub const LINK_PARAMETER: &str = "ryw";
/// Cookie for browsers: a signed token.
pub const COOKIE: &str = "__Host-ryw";
/// The same cookie for plain-http development, where browsers refuse the prefix.
pub const INSECURE_COOKIE: &str = "ryw";

/// Most cookies of one request that a server looks at; more make its marks unknown. A browser has one, and another for each
/// session that was begun for it in the last [`Token`](crate::Token)'s lifetime: most have two.
pub const MAX_COOKIES: usize = 16;

/// Longest name of a session, user, resource or tenant, in bytes.
pub const MAX_NAME_LEN: usize = 128;
/// Longest token, in characters.
pub const MAX_TOKEN_LEN: usize = 512;
/// Most positions in one set of marks; chosen so that a full token fits in [`MAX_TOKEN_LEN`].
pub const MAX_POSITIONS: usize = 16;
/// Shortest secret that a key is made of, in bytes.
pub const MIN_SECRET_LEN: usize = 32;

pub(crate) const MAC_LEN: usize = 16;
pub(crate) const TENANT_LEN: usize = 8;
