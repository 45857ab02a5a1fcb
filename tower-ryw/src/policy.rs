//! What a deployment decides: which requests write, which level a route demands, what to do when replicas lag.

use std::{fmt, time::Duration};

use http::{Extensions, HeaderMap, Method, Request, Uri};
use ryw_core::Level;

use crate::problem::Protocol;

/// What a request is going to do to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intent {
    /// It only reads. A handler that writes all the same says so with
    /// [`RywContext::mark_written`](crate::RywContext::mark_written).
    Read,
    /// It may write.
    Write,
}

/// What made a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A `POST` over plain HTTP: what is not idempotent, and mostly makes something new.
    Creation,
    /// Any other request that is classified as a write, and each call of gRPC.
    Update,
    /// A request that is classified as a read, whose handler or pool has said that it wrote; a message of a stream.
    Manual,
    /// What a read has shown (levels MONOTONIC, SESSION and CAUSAL).
    Read,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Creation, Self::Update, Self::Manual, Self::Read];

    /// The word for it in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Update => "update",
            Self::Manual => "manual",
            Self::Read => "read",
        }
    }
}

/// The head of a request: everything but its body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// What other layers have attached.
    pub extensions: &'a Extensions,
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// Tells reads from writes.
///
/// Implemented for closures:
///
/// ```
/// use tower_ryw::{Classify, Intent, RequestHead};
/// let by_path = |head: RequestHead<'_>| match head.uri.path() {
///     "/graphql/query" => Intent::Read,
///     _ => Intent::Write,
/// };
/// let request = http::Request::post("/graphql/query").body(()).unwrap();
/// assert_eq!(by_path.classify((&request).into()), Intent::Read);
/// ```
pub trait Classify: Send + Sync + 'static {
    /// What this request is going to do.
    fn classify(&self, head: RequestHead<'_>) -> Intent;
}

impl<F> Classify for F
where
    F: Fn(RequestHead<'_>) -> Intent + Send + Sync + 'static,
{
    fn classify(&self, head: RequestHead<'_>) -> Intent {
        self(head)
    }
}

/// What a request's body has said; an extension that a `ClassifyBodyLayer` makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyIntent(pub(crate) Intent);

/// The default: GET, HEAD, OPTIONS and TRACE (RFC 9110, section 9.2.1) and QUERY (RFC 10008) read; all else writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SafeMethods;

impl Classify for SafeMethods {
    fn classify(&self, head: RequestHead<'_>) -> Intent {
        // Deliberately not only Method::is_safe, which does not know QUERY.
        if head.method.is_safe() || head.method.as_str() == "QUERY" { Intent::Read } else { Intent::Write }
    }
}

/// What to do, rung by rung, when no replica is fresh enough for a read.
///
/// First wait, then ask the primary within its budget, then serve a stale read if that is allowed, then refuse with
/// 503 and `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    pub(crate) wait: Duration,
    pub(crate) primary: bool,
    pub(crate) stale: Option<Duration>,
}

impl Ladder {
    /// Wait 10 ms for a replica, then ask the primary, then refuse.
    #[must_use]
    pub const fn new() -> Self {
        Self { wait: Duration::from_millis(10), primary: true, stale: None }
    }

    /// How long to wait for a replica to catch up. Zero does not wait. Default: 10 ms. At most 2 s.
    #[must_use]
    pub const fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// Whether the primary may serve reads that no replica is fresh enough for. Default: true.
    #[must_use]
    pub const fn primary(mut self, allowed: bool) -> Self {
        self.primary = allowed;
        self
    }

    /// Serves a read from a replica that is at most this stale, rather than refusing it; the response says so.
    /// Default: never.
    #[must_use]
    pub const fn stale(mut self, limit: Duration) -> Self {
        self.stale = Some(limit);
        self
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self::new()
    }
}

/// What holds for some paths only.
///
/// ```
/// use tower_ryw::{Intent, Level, RouteRule};
/// let search = RouteRule::new("/v1/search").intent(Intent::Read);
/// let money = RouteRule::new("/v1/accounts/*").level(Level::Strong);
/// ```
#[derive(Clone, Debug)]
pub struct RouteRule {
    pub(crate) path: String,
    pub(crate) intent: Option<Intent>,
    pub(crate) level: Option<Level>,
    pub(crate) ladder: Option<Ladder>,
    pub(crate) strict_writes: Option<bool>,
}

impl RouteRule {
    /// A rule for one path, or for all paths with a prefix when it ends in `*`. The first rule that matches counts.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), intent: None, level: None, ladder: None, strict_writes: None }
    }

    /// Whether these requests read or write. Default: as [`Classify`] says.
    #[must_use]
    pub const fn intent(mut self, intent: Intent) -> Self {
        self.intent = Some(intent);
        self
    }

    /// The level that these requests are served at, at least. Default: the layer's.
    #[must_use]
    pub const fn level(mut self, minimum: Level) -> Self {
        self.level = Some(minimum);
        self
    }

    /// What to do when no replica is fresh enough. Default: the layer's.
    #[must_use]
    pub const fn ladder(mut self, ladder: Ladder) -> Self {
        self.ladder = Some(ladder);
        self
    }

    /// Whether these requests, where they write, are announced to all instances before they run, and refused when they
    /// can't be; see [`RywLayerBuilder::strict_writes`](crate::RywLayerBuilder::strict_writes). Default: the layer's.
    #[must_use]
    pub const fn strict_writes(mut self, strict: bool) -> Self {
        self.strict_writes = Some(strict);
        self
    }

    fn matches(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path,
        }
    }
}

/// The deployment's decisions, asked once per request.
pub(crate) struct Policy {
    pub(crate) classify: Box<dyn Classify>,
    pub(crate) minimum: Level,
    pub(crate) default: Level,
    pub(crate) maximum: Level,
    pub(crate) ladder: Ladder,
    pub(crate) strict_writes: bool,
    pub(crate) rules: Vec<RouteRule>,
}

/// What the policy says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) intent: Intent,
    /// The strongest of what the route demands and what the client asked for.
    pub(crate) level: Level,
    /// A bound on staleness that holds besides the level: levels are ordered, but RYW alone does not imply it.
    pub(crate) bound: Option<Duration>,
    /// Whether reads raise the session's marks, because the route demands it or the client asked for it.
    pub(crate) reads_raise_marks: bool,
    pub(crate) ladder: Ladder,
    /// Writes are announced: everybody is to know before they are made.
    pub(crate) strict_writes: bool,
    /// What a write of it would be called.
    pub(crate) source: Source,
    /// Which of the rules holds; as many as there are where none does.
    pub(crate) rule: usize,
}

/// What has to be kept of a read that is passed through, so that its terms can be made again should somebody ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    rule: usize,
    eventual: bool,
}

impl Plain {
    /// Of a read of which nothing is remembered, and whose marks alone decide.
    pub(crate) fn of(terms: &Terms) -> Option<Self> {
        let eventual = match terms.level {
            Level::Eventual => true,
            Level::ReadYourWrites => false,
            _ => return None,
        };
        let is_plain = terms.intent == Intent::Read && terms.bound.is_none() && !terms.reads_raise_marks;
        is_plain.then_some(Self { rule: terms.rule, eventual })
    }
}

impl Terms {
    /// Whether it writes, and everybody is to know before it does.
    pub(crate) fn is_announced(&self) -> bool {
        self.strict_writes && self.intent == Intent::Write
    }

    /// Whether a write must come after what the session has written and seen before.
    pub(crate) fn orders_writes(&self) -> bool {
        self.level >= Level::Session
    }
}

impl Policy {
    /// A client may ask for more than the minimum, up to the maximum, and never for less.
    pub(crate) fn terms(&self, head: RequestHead<'_>, asked: Option<Level>) -> Terms {
        let matching = self.rules.iter().position(|rule| rule.matches(head.uri.path())).unwrap_or(self.rules.len());
        let rule = self.rules.get(matching);
        let minimum = match rule.and_then(|rule| rule.level) {
            Some(level) => level.max(self.minimum),
            None => self.minimum,
        };
        let wanted = asked.unwrap_or(self.default).min(self.maximum);
        let chosen = wanted.max(minimum);
        // Of what was demanded and what was asked for the weaker one holds as well: the stronger need not imply it.
        let bounds =
            [minimum, wanted].map(|level| if let Level::BoundedStaleness(bound) = level { Some(bound) } else { None });
        let intent =
            rule.and_then(|rule| rule.intent).or_else(|| by_body(head)).unwrap_or_else(|| self.classify.classify(head));
        Terms {
            intent,
            level: chosen,
            bound: bounds.into_iter().flatten().min(),
            reads_raise_marks: wanted.reads_raise_marks() || minimum.reads_raise_marks(),
            ladder: self.ladder_of(rule),
            strict_writes: self.is_strict(rule),
            source: source(head, intent),
            rule: matching,
        }
    }

    /// The terms that this was [made of](Plain::of).
    pub(crate) fn terms_of(&self, Plain { rule, eventual }: Plain) -> Terms {
        let (matching, rule) = (rule, self.rules.get(rule));
        Terms {
            intent: Intent::Read,
            level: if eventual { Level::Eventual } else { Level::ReadYourWrites },
            bound: None,
            reads_raise_marks: false,
            ladder: self.ladder_of(rule),
            strict_writes: self.is_strict(rule),
            source: Source::Manual,
            rule: matching,
        }
    }

    fn ladder_of(&self, rule: Option<&RouteRule>) -> Ladder {
        rule.and_then(|rule| rule.ladder).unwrap_or(self.ladder)
    }

    fn is_strict(&self, rule: Option<&RouteRule>) -> bool {
        rule.and_then(|rule| rule.strict_writes).unwrap_or(self.strict_writes)
    }
}

fn source(head: RequestHead<'_>, intent: Intent) -> Source {
    match intent {
        // Who writes here has to say so.
        Intent::Read => Source::Manual,
        Intent::Write if head.method == Method::POST && Protocol::of(head.headers) == Protocol::Http => {
            Source::Creation
        }
        Intent::Write => Source::Update,
    }
}

fn by_body(head: RequestHead<'_>) -> Option<Intent> {
    head.extensions.get::<BodyIntent>().map(|BodyIntent(intent)| *intent)
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { classify: _, minimum, default, maximum, ladder, strict_writes, rules } = self;
        f.debug_struct("Policy")
            .field("minimum", minimum)
            .field("default", default)
            .field("maximum", maximum)
            .field("ladder", ladder)
            .field("strict_writes", strict_writes)
            .field("rules", rules)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_methods_read() {
        for (method, expected) in [
            ("GET", Intent::Read),
            ("HEAD", Intent::Read),
            ("OPTIONS", Intent::Read),
            ("TRACE", Intent::Read),
            ("QUERY", Intent::Read),
            ("POST", Intent::Write),
            ("PUT", Intent::Write),
            ("PATCH", Intent::Write),
            ("DELETE", Intent::Write),
            ("CONNECT", Intent::Write),
            ("PROPFIND", Intent::Write),
            ("get", Intent::Write),
        ] {
            let request = Request::builder().method(method).body(()).unwrap();
            assert_eq!(SafeMethods.classify((&request).into()), expected, "{method}");
        }
    }

    #[test]
    fn the_strongest_of_route_and_client_wins_up_to_the_maximum() {
        use Level::*;
        let policy = Policy {
            classify: Box::new(SafeMethods),
            minimum: Eventual,
            default: ReadYourWrites,
            maximum: Causal,
            ladder: Ladder::new(),
            strict_writes: false,
            rules: vec![
                RouteRule::new("/money/*").level(Session),
                RouteRule::new("/audit").level(Strong).intent(Intent::Read).ladder(Ladder::new().primary(false)),
            ],
        };
        for (path, asked, expected) in [
            ("/", None, ReadYourWrites),
            ("/", Some(Eventual), Eventual),
            ("/", Some(Strong), Causal),
            ("/money/1", None, Session),
            ("/money/1", Some(Eventual), Session),
            ("/money/1", Some(Causal), Causal),
            ("/money", Some(Eventual), Eventual),
            ("/audit", Some(Eventual), Strong),
        ] {
            let request = Request::post(path).body(()).unwrap();
            assert_eq!(policy.terms((&request).into(), asked).level, expected, "{path} {asked:?}");
        }
        let request = Request::post("/audit").body(()).unwrap();
        let terms = policy.terms((&request).into(), None);
        assert_eq!((terms.intent, terms.ladder.primary), (Intent::Read, false));
    }

    #[test]
    fn the_terms_of_a_plain_read_can_be_made_again() {
        let ladder = Ladder::new().stale(Duration::from_secs(1));
        let policy = Policy {
            classify: Box::new(SafeMethods),
            minimum: Level::Eventual,
            default: Level::ReadYourWrites,
            maximum: Level::Strong,
            ladder: Ladder::new(),
            strict_writes: true,
            rules: vec![
                RouteRule::new("/search").intent(Intent::Read).ladder(ladder).strict_writes(false),
                RouteRule::new("/seen").level(Level::MonotonicReads),
            ],
        };
        for (method, path, asked, is_plain) in [
            (Method::GET, "/", None, true),
            (Method::GET, "/", Some(Level::Eventual), true),
            (Method::POST, "/search", None, true),
            (Method::POST, "/search", Some(Level::Eventual), true),
            (Method::POST, "/", None, false),
            (Method::GET, "/seen", None, false),
            (Method::GET, "/", Some(Level::Strong), false),
            (Method::GET, "/", Some(Level::BoundedStaleness(Duration::from_secs(1))), false),
        ] {
            let request = Request::builder().method(&method).uri(path).body(()).unwrap();
            let terms = policy.terms((&request).into(), asked);
            let again = Plain::of(&terms).map(|plain| policy.terms_of(plain));
            assert_eq!(again, is_plain.then_some(terms), "{method} {path} {asked:?}");
        }
    }

    /// Levels are ordered, but RYW implies neither of the weaker two: who asks for one where RYW is demanded gets both.
    #[test]
    fn what_a_stronger_level_does_not_imply_holds_beside_it() {
        use Level::*;
        let bounded = |ms| BoundedStaleness(Duration::from_millis(ms));
        for (minimum, asked, level, bound, raises) in [
            (ReadYourWrites, None, ReadYourWrites, None, false),
            (ReadYourWrites, Some(MonotonicReads), ReadYourWrites, None, true),
            (ReadYourWrites, Some(bounded(7)), ReadYourWrites, Some(7), false),
            (MonotonicReads, Some(ReadYourWrites), ReadYourWrites, None, true),
            (MonotonicReads, Some(bounded(7)), MonotonicReads, Some(7), true),
            (bounded(9), Some(ReadYourWrites), ReadYourWrites, Some(9), false),
            (bounded(9), Some(bounded(7)), bounded(7), Some(7), false),
            (Eventual, Some(Session), Session, None, true),
        ] {
            let policy = Policy {
                classify: Box::new(SafeMethods),
                minimum,
                default: minimum,
                maximum: Strong,
                ladder: Ladder::new(),
                strict_writes: false,
                rules: Vec::new(),
            };
            let request = Request::get("/").body(()).unwrap();
            let terms = policy.terms((&request).into(), asked);
            let found = (terms.level, terms.bound, terms.reads_raise_marks);
            let expected = (level, bound.map(Duration::from_millis), raises);
            assert_eq!(found, expected, "{minimum} at least, {asked:?} asked for");
        }
    }
}
