//! One request on its way: what each attempt carries, and what follows its answer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, uri::Scheme};
use ryw_core::{Outcome, wire};
use tokio::time::Instant;

use crate::{
    baggage,
    body::{LearnBody, Lesson, RetryBody},
    layer::{Config, Source},
    redirect,
    report::{GaveUp, Report},
    retry::{Behind, Budget, Retry},
    served::{Served, Work},
    session::{Destination, Sent, Session, speaks},
};

pub(crate) struct Call<B: RetryBody> {
    config: Arc<Config>,
    budget: Arc<Budget>,
    session: Session,
    began: Instant,
    /// Whether it can do no harm twice.
    safe: bool,
    method: Method,
    uri: Uri,
    /// One of its attempts went over https.
    was_secure: bool,
    /// The request as it came, if it may be made more than once.
    again: Option<Again<B>>,
    /// The attempt that is on its way.
    lesson: Lesson,
    told: bool,
    /// Of a write that is on its way.
    doubt: Option<Doubt>,
    retries: u32,
    report: Report,
}

struct Again<B: RetryBody> {
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body<B>,
}

/// Tells the session of a write that went without an answer, however that came about.
struct Doubt {
    session: Session,
    to: Destination,
    /// Who else is told, where nobody is left to wait for it.
    served: Served,
    answered: bool,
}

impl Doubt {
    /// The attempt is over, and the caller is still there to hand over what it has left.
    fn end(mut self, answered: bool) {
        self.answered = answered;
        self.served = Served::nobody();
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if !self.answered {
            // This may run while a panic unwinds: one in somebody's consumer must not end the process.
            let told = catch_unwind(AssertUnwindSafe(|| self.session.doubt(&self.to)));
            self.served.hand_over_late(&self.session);
            if told.is_err() {
                tracing::error!("the consumer of a session panicked");
            }
        }
    }
}

enum Body<B: RetryBody> {
    Copy(B::Copy),
    /// Left behind by a redirect.
    Empty,
}

impl<B: RetryBody> Call<B> {
    /// The request with what it has to carry.
    pub(crate) fn begin(config: Arc<Config>, budget: Arc<Budget>, request: Request<B>) -> (Self, Request<B>) {
        let (session, served) = match &config.source {
            Source::Session(session) => (session.clone(), Served::nobody()),
            #[cfg(feature = "server")]
            Source::Served(session) => Served::current(session),
        };
        let (mut parts, body) = request.into_parts();
        let safe = config.retry.is_safe(&parts.method, &parts.uri);
        let (again, body) = if safe && config.retry.limit > 0 || config.redirects.is_some() {
            let (body, copy) = body.record();
            let (headers, extensions) = (parts.headers.clone(), parts.extensions.clone());
            (Some(Again { version: parts.version, headers, extensions, body: Body::Copy(copy) }), body)
        } else {
            (None, body)
        };
        budget.earn();
        let to = Destination::of(&parts.uri);
        let (told, mut lesson) = attach(&config, &session, &served, to, &mut parts.headers);
        lesson.writes = !safe;
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let report = Report { attempts: 1, ..Report::default() };
        let mut call = Self {
            config,
            budget,
            session,
            began: Instant::now(),
            safe,
            method,
            uri,
            was_secure: false,
            again,
            lesson,
            told,
            doubt: None,
            retries: 0,
            report,
        };
        call.leave();
        (call, Request::from_parts(parts, body))
    }

    /// Learns from an answer. Returns the request that follows it, and what to wait for before, unless the answer is the
    /// caller's.
    pub(crate) fn answered<R>(&mut self, response: &Response<R>) -> Option<(Duration, Request<B>)> {
        let headers = response.headers();
        if let Some(doubt) = self.doubt.take() {
            // A proxy that gave up knows nothing of what the server goes on to do.
            let grpc = headers.get("grpc-status").map(HeaderValue::as_bytes);
            doubt.end(Outcome::of_write(response.status(), grpc) != Outcome::Unknown || speaks(headers));
        }
        match self.told {
            true => self.lesson.learn(headers),
            false => self.session.foreign(headers),
        }
        if let Some(again) = self.redirected(response) {
            return Some((Duration::ZERO, again));
        }
        // What others mean by such an answer is for the caller to know.
        if !self.told {
            return None;
        }
        let asked = self.again.as_ref().map(|again| &again.headers);
        let behind = match asked {
            Some(asked) => Behind::of(asked, response.status(), headers),
            None => Behind::of(&HeaderMap::new(), response.status(), headers),
        };
        match self.retried(behind?) {
            Ok((pause, request)) => {
                tracing::debug!(pause_ms = pause.as_millis(), "no node was fresh enough: the read is made again");
                Some((pause, request))
            }
            Err(why) => {
                tracing::debug!(?why, "no node was fresh enough: the answer is handed on");
                self.report.gave_up = Some(why);
                None
            }
        }
    }

    /// The attempt has failed.
    pub(crate) fn failed(&mut self) {
        if let Some(doubt) = self.doubt.take() {
            doubt.end(false);
        }
    }

    /// Tells the request that is being served what was learned. It has to be waited for before the caller goes on.
    pub(crate) fn hand_over(&self) -> Option<Work> {
        self.lesson.served.hand_over(&self.session)
    }

    /// What the caller gets.
    pub(crate) fn finish<R>(self, mut response: Response<R>) -> Response<LearnBody<R>> {
        let Self { lesson, told, mut report, .. } = self;
        (report.told, report.tokens) = (told, lesson.sent.tokens.len());
        response.extensions_mut().insert(report);
        response.map(|body| LearnBody::new(body, told.then_some(lesson)))
    }

    fn retried(&mut self, behind: Behind) -> Result<(Duration, Request<B>), GaveUp> {
        if !self.safe {
            return Err(GaveUp::Unsafe);
        }
        if self.retries >= self.config.retry.limit {
            return Err(GaveUp::Limit);
        }
        let pause = Retry::pause(behind, self.retries);
        if self.began.elapsed().saturating_add(pause) > self.config.retry.deadline {
            return Err(GaveUp::Deadline);
        }
        let request = self.request().ok_or(GaveUp::Body)?;
        if !self.budget.spend() {
            return Err(GaveUp::Budget);
        }
        self.retries += 1;
        self.report.attempts += 1;
        self.report.waited += pause;
        Ok((pause, request))
    }

    fn redirected<R>(&mut self, response: &Response<R>) -> Option<Request<B>> {
        self.config.redirects.filter(|limit| self.report.redirects < *limit)?;
        let next = redirect::next(response.status(), &self.method, &self.uri, response.headers())?;
        let again = self.again.as_mut()?;
        if next.keeps_body {
            // Nothing is changed before it is certain that the request can be made.
            again.body()?;
        } else {
            again.body = Body::Empty;
        }
        redirect::adapt(&mut again.headers, &self.uri, &next);
        self.was_secure |= self.uri.scheme() == Some(&Scheme::HTTPS);
        (self.method, self.uri) = (next.method, next.uri);
        self.safe = self.config.retry.is_safe(&self.method, &self.uri);
        let request = self.request()?;
        self.report.redirects += 1;
        self.report.attempts += 1;
        Some(request)
    }

    /// The request as it came, with its body but without what the session adds.
    fn request(&self) -> Option<Request<B>> {
        let again = self.again.as_ref()?;
        let mut request = Request::new(again.body()?);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = again.version;
        *request.headers_mut() = again.headers.clone();
        *request.extensions_mut() = again.extensions.clone();
        Some(request)
    }

    /// Adds what the session knows by now, right before the request leaves.
    pub(crate) fn attach(&mut self, request: &mut Request<B>) {
        let to = Destination::of(request.uri());
        let to = if self.was_secure { to.after_https() } else { to };
        let served = self.lesson.served.clone();
        (self.told, self.lesson) = attach(&self.config, &self.session, &served, to, request.headers_mut());
        self.lesson.writes = !self.safe;
        self.leave();
    }

    /// The attempt leaves now.
    fn leave(&mut self) {
        let doubt = || Doubt {
            session: self.session.clone(),
            to: self.lesson.from.clone(),
            served: self.lesson.served.clone(),
            answered: false,
        };
        self.doubt = (self.told && !self.safe).then(doubt);
    }
}

impl<B: RetryBody> Again<B> {
    fn body(&self) -> Option<B> {
        match &self.body {
            Body::Copy(copy) => B::replay(copy),
            Body::Empty => Some(B::empty()),
        }
    }
}

fn attach(
    config: &Config,
    session: &Session,
    served: &Served,
    to: Destination,
    headers: &mut HeaderMap,
) -> (bool, Lesson) {
    let sent = session.attach(&to, headers);
    let told = sent.is_some();
    let sent: Sent = sent.unwrap_or_default();
    if told && config.baggage {
        baggage::add(headers, &sent.tokens);
    } else if !told {
        baggage::strip(headers);
    }
    if told && let Some(level) = config.level.as_ref().or(served.level()) {
        headers.entry(&wire::CONSISTENCY_LEVEL).or_insert_with(|| level.clone());
    }
    (told, Lesson { session: session.clone(), from: to, sent, served: served.clone(), writes: false })
}
