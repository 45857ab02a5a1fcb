//! How a session's requests are made: by `ryw-client`, by name alone, or by a cookie jar.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use ryw_client::{RywClientLayer, Session};
use ryw_core::wire;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};

use super::judge::Answer;
use crate::error::Error;

/// For one request with all its retries: beyond what the service takes for itself.
const DEADLINE: Duration = Duration::from_secs(8);

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// A client with its connections.
pub(crate) fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(1)));
    Client::builder(TokioExecutor::new()).build(connector)
}

/// What carries a session from one request to the next.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    /// `ryw-client`, with tokens.
    Client(Session),
    /// A name: all there is to know is kept by the service.
    Named(Arc<Named>),
    /// A cookie, which the tabs of one browser overwrite for each other.
    Cookie(Arc<Jar>),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) acknowledges: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Jar {
    cookie: Mutex<Option<HeaderValue>>,
    acknowledges: AtomicBool,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) level: Option<String>,
    pub(crate) body: Bytes,
    /// The client goes away after so long.
    pub(crate) cancel: Option<Duration>,
}

impl Carrier {
    /// Makes it. `None` when there is no answer.
    pub(crate) async fn call(&self, http: &Http, call: Call) -> Option<(Answer, Bytes)> {
        let limit = call.cancel.unwrap_or(DEADLINE);
        timeout(limit, self.carried(http, call)).await.ok()?
    }

    async fn carried(&self, http: &Http, call: Call) -> Option<(Answer, Bytes)> {
        let mut request = Request::builder().method(call.method).uri(call.uri);
        if let Some(level) = call.level {
            request = request.header(&wire::CONSISTENCY_LEVEL, level);
        }
        let mut request = request.body(Full::new(call.body)).ok()?;
        let headers = request.headers_mut();
        match self {
            Self::Client(session) => {
                let answer = send(RywClientLayer::new(session.clone()).layer(http.clone()), request).await?;
                session.acknowledge_lost();
                Some(answer)
            }
            Self::Named(named) => {
                headers.insert(&wire::SESSION_ID, HeaderValue::from_str(&named.name).ok()?);
                acknowledge(&named.acknowledges, headers);
                let (answer, body) = send(http.clone(), request).await?;
                named.acknowledges.fetch_or(answer.lost, Relaxed);
                Some((answer, body))
            }
            Self::Cookie(jar) => {
                if let Some(cookie) = jar.cookie.lock().clone() {
                    headers.insert(header::COOKIE, cookie);
                }
                acknowledge(&jar.acknowledges, headers);
                let response = http.clone().oneshot(request).await.ok()?;
                if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
                    let pair =
                        cookie.to_str().ok()?.split(';').next().and_then(|pair| HeaderValue::from_str(pair).ok());
                    *jar.cookie.lock() = pair;
                }
                let (answer, body) = read(response).await?;
                jar.acknowledges.fetch_or(answer.lost, Relaxed);
                Some((answer, body))
            }
            Self::Nothing => send(http.clone(), request).await,
        }
    }

    /// What a message to another session says, where this one can say anything.
    pub(crate) fn envelope(&self) -> Option<String> {
        match self {
            Self::Client(session) => Some(session.envelope().to_string()),
            _ => None,
        }
    }

    pub(crate) fn join(&self, envelope: &str) -> Result<(), Error> {
        if let Self::Client(session) = self {
            session.join(&envelope.parse().map_err(Error::with("an envelope can't be read"))?);
        }
        Ok(())
    }
}

/// Once for each loss that was told, in whichever tab comes first.
fn acknowledge(pending: &AtomicBool, headers: &mut http::HeaderMap) {
    if pending.swap(false, Relaxed) {
        headers.insert(&wire::LOST, HeaderValue::from_static("ack"));
    }
}

async fn send<S, B>(service: S, request: Request<Full<Bytes>>) -> Option<(Answer, Bytes)>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>>,
    B: http_body_util::BodyExt<Data = Bytes>,
{
    read(service.oneshot(request).await.ok()?).await
}

async fn read<B: http_body_util::BodyExt<Data = Bytes>>(response: http::Response<B>) -> Option<(Answer, Bytes)> {
    let (parts, body) = response.into_parts();
    let body = BodyExt::collect(body).await.ok()?.to_bytes();
    Some((Answer::of(parts.status.as_u16(), &parts.headers), body))
}
