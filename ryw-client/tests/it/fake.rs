//! A server that answers as it is told and remembers what it was asked.

use std::{convert::Infallible, future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use parking_lot::Mutex;
use ryw_client::RywClientLayer;
use ryw_core::{ClusterId, Epoch, Key, Keyring, Marks, Position, SubjectKey, Tenant, Token};
use tower::{Layer, Service, service_fn};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

type Answer = dyn Fn(usize, &Seen) -> Response<Body> + Send + Sync;

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    /// The values of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// The server: `answer` is given how many requests came before, and the request.
#[derive(Clone)]
pub(crate) struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(usize, &Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self { seen: Arc::default(), answer: Arc::new(answer) }
    }

    /// The same answers, for requests from the first one on.
    pub(crate) fn fresh(&self) -> Self {
        Self { seen: Arc::default(), answer: Arc::clone(&self.answer) }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Makes one request through the layer. It has left when this returns, and is answered when the future is polled.
    pub(crate) fn ask(
        &self,
        layer: &RywClientLayer,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Response<Bytes>> + use<> {
        let server = self.clone();
        let service = service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = String::from_utf8(body.to_vec()).unwrap();
                let seen = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body };
                let before = {
                    let mut all = server.seen.lock();
                    all.push(seen.clone());
                    all.len() - 1
                };
                Ok::<_, Infallible>((server.answer)(before, &seen))
            }
        });
        // Always ready.
        let response = layer.layer(service).call(request);
        async move {
            let (parts, body) = response.await.unwrap().into_parts();
            Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
        }
    }
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

pub(crate) fn post(uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

pub(crate) fn answer(status: u16, headers: &[(&'static str, &str)]) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    response
}

/// A server's token that requires everything up to `offset`.
pub(crate) fn token(offset: u64) -> String {
    token_of(1, 1, offset)
}

/// The same, of another session, signed by a server with another key.
pub(crate) fn token_of(key: u8, session: u8, offset: u64) -> String {
    let keys = Keyring::new(Key::new(key, &[key; 32]).unwrap());
    let marks = Marks::at(Position::new(ClusterId::new(1), Epoch::new(1), offset));
    Token { session: SubjectKey::from_bytes([session; 16]), issued_at: 1, marks }.seal(&keys, &Tenant::default())
}
