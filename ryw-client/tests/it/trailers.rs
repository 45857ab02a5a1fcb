//! What comes after the body is learned too, and the body itself is left as it is.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use ryw_client::{RywClientLayer, Session};

use crate::fake::{Server, answer, get, token};

#[tokio::test]
async fn a_token_in_the_trailers_is_carried() {
    let server = Server::new(|_, _| {
        let mut trailers = HeaderMap::new();
        trailers.insert("ryw-token", HeaderValue::from_str(&token(7)).unwrap());
        let body = Full::new(Bytes::from("streamed")).with_trailers(std::future::ready(Some(Ok(trailers))));
        Response::new(body.boxed())
    });
    for uri in ["http://a.example/", "/channel"] {
        let layer = RywClientLayer::new(Session::new());
        let response = server.ask(&layer, get(uri)).await;
        assert_eq!(response.body(), "streamed");
        let next = Server::new(|_, _| answer(200, &[]));
        next.ask(&layer, get(uri)).await;
        assert_eq!(next.seen()[0].all("ryw-token"), [token(7)]);
    }
}
