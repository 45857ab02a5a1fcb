//! One trace across services: W3C trace context, taken from requests that come in and put onto those that go out.

use axum::{extract::Request, middleware::Next, response::Response};
use opentelemetry::global;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A span for each request, below the caller's.
pub(crate) async fn server_span(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {path}"),
        otel.kind = "server",
        http.request.method = method,
        url.path = path,
        http.response.status_code = Empty,
    );
    let caller = global::get_text_map_propagator(|it| it.extract(&HeaderExtractor(request.headers())));
    if let Err(error) = span.set_parent(caller) {
        tracing::debug!(%error, "the span stays without its caller");
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

/// Tells the service that is called which span it works for.
pub(crate) fn inject<B>(mut request: http::Request<B>) -> http::Request<B> {
    let current = Span::current().context();
    global::get_text_map_propagator(|it| it.inject_context(&current, &mut HeaderInjector(request.headers_mut())));
    request
}
