//! One service, asked again and again.

use std::{convert::Infallible, fmt, future::Ready, time::Duration};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::clock::each;

/// How the handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Done,
    /// 500: of a write, nobody knows the outcome.
    Failed,
}

/// What is asked: a method, and headers besides those that every request has.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// A header that tells who asks.
    pub header: Option<(&'static str, HeaderValue)>,
    /// What the handler answers.
    pub answer: Answer,
}

impl Asked {
    /// A read.
    pub fn get(header: Option<(&'static str, HeaderValue)>) -> Self {
        Self { method: Method::GET, header, answer: Answer::Done }
    }

    /// A write.
    pub fn put(header: Option<(&'static str, HeaderValue)>, answer: Answer) -> Self {
        Self { method: Method::PUT, header, answer }
    }

    /// With what every server and every browser adds: some headers, and one extension (where the peer is).
    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = http::Uri::from_static("/v1/notes/7");
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("notes.example"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some((name, value)) = &self.header {
            headers.insert(*name, value.clone());
        }
        request.extensions_mut().insert(Peer([127, 0, 0, 1], 5432));
        request
    }
}

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "stands for what a server attaches")]
struct Peer([u8; 4], u16);

/// Answers at once, with what nearly every handler says about its body.
pub fn handler(
    answer: Answer,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = Ready<Result<Response<Body>, Infallible>>,
> + Clone {
    service_fn(move |request: Request<Body>| {
        std::hint::black_box(&request);
        std::future::ready(Ok(answered(answer)))
    })
}

/// The handler's answer.
pub fn answered(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    if answer == Answer::Failed {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Something that can be asked many times.
pub trait Bench {
    /// Asks once, and gives everything else that runs a turn.
    fn prime(&mut self, runtime: &Runtime) -> Result<HeaderMap, String>;

    /// Makes as many requests as will be asked.
    fn prepare(&mut self, requests: usize);

    /// Asks all of them, one after the other.
    fn run(&mut self);
}

impl fmt::Debug for dyn Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bench")
    }
}

struct Running<S> {
    service: S,
    asked: Asked,
    requests: Vec<Request<Body>>,
    failed: u64,
}

/// This layer around the handler.
pub fn bench<L, S, H, R>(layer: L, handler: H, asked: Asked) -> Box<dyn Bench>
where
    L: Layer<H, Service = S>,
    S: Service<Request<Body>, Response = Response<R>, Error: fmt::Debug> + 'static,
{
    Box::new(Running { service: layer.layer(handler), asked, requests: Vec::new(), failed: 0 })
}

impl<S, R> Bench for Running<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: fmt::Debug>,
{
    fn prime(&mut self, runtime: &Runtime) -> Result<HeaderMap, String> {
        let request = self.asked.request();
        let response = runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.service.ready().await?.call(request).await
        });
        response.map(|response| response.headers().clone()).map_err(|error| format!("{error:?}"))
    }

    fn prepare(&mut self, requests: usize) {
        self.requests.extend(std::iter::repeat_with(|| self.asked.request()).take(requests));
    }

    fn run(&mut self) {
        let waker = futures_util::task::noop_waker();
        let mut context = std::task::Context::from_waker(&waker);
        for request in self.requests.drain(..) {
            let _ = self.service.poll_ready(&mut context);
            let mut response = std::pin::pin!(self.service.call(request));
            // Nothing that is measured waits; what does would not be counted as an answer.
            match response.as_mut().poll(&mut context) {
                std::task::Poll::Ready(Ok(response)) => drop(std::hint::black_box(response)),
                _ => self.failed += 1,
            }
        }
    }
}

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        if self.failed > 0 {
            eprintln!("{} requests were not answered at once: what was measured is not what it says", self.failed);
        }
    }
}

/// What callgrind counts: it is told this name.
#[inline(never)]
pub fn measured(bench: &mut dyn Bench) {
    bench.run();
}

/// ns of processor time per request.
pub fn time(bench: &mut dyn Bench, requests: usize) -> f64 {
    bench.prepare(requests);
    each(requests as u64, || measured(bench))
}
