//! A gRPC server behind the layer: the same names as metadata, and refusals as a gRPC status.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::{
    Code, Request,
    metadata::MetadataMap,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
    server::health_reporter,
};
use tower_ryw::{Intent, RouteRule, RywLayer};

/// Ends with the test's runtime.
async fn serve(layer: RywLayer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = health_reporter();
    let server = Server::builder().layer(layer).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn client(layer: RywLayer) -> HealthClient<Channel> {
    let url = format!("http://{}", serve(layer).await);
    HealthClient::new(Channel::from_shared(url).unwrap().connect().await.unwrap())
}

fn check(metadata: &[(&'static str, &'static str)]) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest::default());
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_call_is_a_write_unless_it_is_told_otherwise() {
    let mut client = client(RywLayer::new()).await;
    let response = client.check(check(&[])).await.unwrap();
    assert_eq!(response.get_ref().status(), ServingStatus::Serving);
    let metadata = response.metadata();
    assert_eq!(text(metadata, "x-session-id").map(str::len), Some(32), "{metadata:?}");
    assert!(text(metadata, "ryw-token").is_some(), "{metadata:?}");
    assert!(text(metadata, "ryw-route").unwrap().starts_with("primary;reason=write"), "{metadata:?}");

    let response = client.check(check(&[("x-session-id", "mine")])).await.unwrap();
    assert_eq!(text(response.metadata(), "x-session-id"), Some("mine"));
}

#[tokio::test]
async fn a_call_that_reads_creates_no_session() {
    let reads = RouteRule::new("/grpc.health.v1.Health/*").intent(Intent::Read);
    let layer = RywLayer::builder().route(reads).build().unwrap();
    let mut client = client(layer.clone()).await;
    let response = client.check(check(&[])).await.unwrap();
    assert_eq!(response.get_ref().status(), ServingStatus::Serving);
    for name in ["x-session-id", "ryw-token", "set-cookie"] {
        assert_eq!(text(response.metadata(), name), None, "{response:?}");
    }
    assert_eq!(layer.local_store().len(), 0);
}

#[tokio::test]
async fn metadata_that_cannot_be_understood_is_an_invalid_argument() {
    let mut client = client(RywLayer::new()).await;
    for (name, value, says) in [
        ("x-session-id", "a b", &["X-Session-ID", "session id", "128"][..]),
        ("x-consistency-level", "STRONGEST", &["X-Consistency-Level", "STRONGEST", "EVENTUAL", "RYW"]),
    ] {
        let status = client.check(check(&[(name, value)])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(says.iter().all(|part| status.message().contains(part)), "{status:?}");
    }
    assert!(client.check(check(&[("x-consistency-level", "ryw")])).await.is_ok(), "it still serves");
}
