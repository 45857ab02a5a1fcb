//! [`reqwest`] with a session.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ryw_client::{Session, reqwest::Client};
//!
//! let client = Client::new(Session::new())?;
//! client.put("https://api.example.com/notes/1").body("text").send().await?;
//! let text = client.get("https://api.example.com/notes/1").send().await?.text().await?;
//! assert_eq!(text, "text");
//! # Ok(()) }
//! ```

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ::reqwest::{
    Body, ClientBuilder, Error, IntoUrl, Method, Request, Response, ResponseBuilderExt, header::HeaderMap, redirect,
};
use http::{HeaderName, HeaderValue};
use tower_layer::Layer;
use tower_service::Service;

use crate::{layer::RywClientLayer, service::RywClientService, session::Session};

/// A [`reqwest::Client`] whose requests carry a session. Cheap to clone.
///
/// Redirects, up to 10 unless the layer says otherwise, are followed here and not in reqwest, which would copy the session to
/// other hosts and hide what the responses in between say. So the client's own redirect policy is replaced.
#[derive(Clone, Debug)]
pub struct Client {
    client: ::reqwest::Client,
    service: RywClientService<Plain>,
}

/// A request that is being made; see [`reqwest::RequestBuilder`].
#[derive(Debug)]
#[must_use = "nothing is sent until `send` is awaited"]
pub struct RequestBuilder {
    client: Client,
    builder: ::reqwest::RequestBuilder,
}

impl Client {
    /// reqwest's default client with this session.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn new(session: Session) -> Result<Self, Error> {
        Self::build(ClientBuilder::new(), RywClientLayer::new(session))
    }

    /// A client of your own, with a layer of your own.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn build(builder: ClientBuilder, layer: RywClientLayer) -> Result<Self, Error> {
        let client = builder.redirect(redirect::Policy::none()).build()?;
        let layer = match layer.config.redirects {
            None => layer.follow_redirects(10),
            Some(_) => layer,
        };
        let service = layer.layer(Plain(client.clone()));
        Ok(Self { client, service })
    }

    /// A GET request.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A POST request.
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// A PUT request.
    pub fn put(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// A PATCH request.
    pub fn patch(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// A DELETE request.
    pub fn delete(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// A HEAD request.
    pub fn head(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// A request. An URL that can't be used is an error when it is sent.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder { client: self.clone(), builder: self.client.request(method, url) }
    }

    /// Makes a request that is built already. What was done is in the response's extensions:
    /// [`Report`](crate::Report).
    ///
    /// # Errors
    /// As [`reqwest::Client::execute`]. A status is none.
    pub async fn execute(&self, request: Request) -> Result<Response, Error> {
        let request = http::Request::<Body>::try_from(request)?;
        // The inner client is always ready.
        let response = self.service.clone().call(request).await?;
        Ok(response.map(Body::wrap).into())
    }
}

impl RequestBuilder {
    /// Adds a header.
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        self.with(|builder| builder.header(name, value))
    }

    /// Adds headers; those of the same name are replaced.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|builder| builder.headers(headers))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.with(|builder| builder.body(body))
    }

    /// How long each attempt may take. Default: the client's.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|builder| builder.timeout(timeout))
    }

    /// Whatever else reqwest's builder can do: `.with(|request| request.json(&note))`.
    pub fn with(self, change: impl FnOnce(::reqwest::RequestBuilder) -> ::reqwest::RequestBuilder) -> Self {
        let Self { client, builder } = self;
        Self { client, builder: change(builder) }
    }

    /// Makes the request, see [`Client::execute`].
    ///
    /// # Errors
    /// As [`Client::execute`], and for what could not be built.
    pub async fn send(self) -> Result<Response, Error> {
        let Self { client, builder } = self;
        client.execute(builder.build()?).await
    }
}

/// reqwest as a service of plain requests.
#[derive(Clone, Debug)]
struct Plain(::reqwest::Client);

impl Service<http::Request<Body>> for Plain {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let request = Request::try_from(request).map(|request| self.0.execute(request));
        Box::pin(async move {
            let response = request?.await?;
            let url = response.url().clone();
            let mut response = http::Response::<Body>::from(response);
            // Where the answer is from would be forgotten on the way.
            if let Ok(named) = http::Response::builder().url(url).body(()) {
                response.extensions_mut().extend(named.into_parts().0.extensions);
            }
            Ok(response)
        })
    }
}
