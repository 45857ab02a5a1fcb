//! The same over gRPC: metadata instead of headers, `UNAVAILABLE` instead of 503.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ryw_client::{LearnBody, Retry, RywClientLayer, RywClientService, Session};
use ryw_testing::lagging::LaggingStore;
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::{Layer, Service, ServiceExt};
use tower_ryw::{Intent, RequestHead, RywContext};

use crate::service::{layer, store};

/// Keeps which services are there, in a store whose replicas lag: a name is written, and with `x-read` looked up.
struct Registry(LaggingStore);

#[tonic::async_trait]
impl Health for Registry {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let reads = request.metadata().contains_key("x-read");
        let name = request.into_inner().service;
        if !reads {
            self.0.put("services", &name, Some("there".into())).unwrap();
        }
        let route = RywContext::current().unwrap().route();
        let found = self.0.get(&route, "services", &name);
        let status = if found.is_some() { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream =
        Pin<Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

async fn serve(store: &LaggingStore) -> SocketAddr {
    let classify = |head: RequestHead<'_>| match head.headers.contains_key("x-read") {
        true => Intent::Read,
        false => Intent::Write,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer = layer(store).classify(classify).build().unwrap();
    let server = Server::builder().layer(layer).add_service(HealthServer::new(Registry(store.clone())));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn check(name: &str, reads: bool) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest { service: name.into() });
    if reads {
        request.metadata_mut().insert("x-read", "1".parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_carried_session_reads_its_writes_and_a_dropped_one_does_not() {
    const ROUNDS: usize = 20;
    let store = store();
    let channel = channel(serve(&store).await).await;
    let mut plain = HealthClient::new(channel.clone());
    let mut carrying = HealthClient::new(RywClientLayer::new(Session::new()).layer(channel));
    let (mut stale_without, mut stale_with) = (0, 0);
    let serving = |response: Response<HealthCheckResponse>| response.get_ref().status() == ServingStatus::Serving;
    for round in 0..ROUNDS {
        plain.check(check(&format!("a{round}"), false)).await.unwrap();
        stale_without += usize::from(!serving(plain.check(check(&format!("a{round}"), true)).await.unwrap()));
        carrying.check(check(&format!("b{round}"), false)).await.unwrap();
        stale_with += usize::from(!serving(carrying.check(check(&format!("b{round}"), true)).await.unwrap()));
    }
    assert!(stale_without > ROUNDS / 2, "dropping the token was harmless: {stale_without}");
    assert_eq!(stale_with, 0);
}

/// Answers the first `times` calls with `UNAVAILABLE`, after their bodies have been sent.
#[derive(Clone)]
struct Unavailable {
    times: usize,
    calls: Arc<AtomicUsize>,
    channel: Channel,
}

impl Service<http::Request<Body>> for Unavailable {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let refuses = self.calls.fetch_add(1, Relaxed) < self.times;
        let answer = self.channel.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if refuses {
                let mut refusal = http::Response::new(Body::empty());
                refusal.headers_mut().insert("grpc-status", "14".parse().unwrap());
                refusal.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                return Ok(refusal);
            }
            Ok(answer)
        })
    }
}

#[tokio::test]
async fn a_call_that_reads_is_made_again_with_its_message_and_one_that_writes_is_not() {
    let store = store();
    let channel = channel(serve(&store).await).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let unavailable = Unavailable { times: 2, calls: Arc::clone(&calls), channel };
    let layer = RywClientLayer::new(Session::new());
    let mut writing = HealthClient::new(layer.layer(unavailable.clone()));
    assert_eq!(writing.check(check("a", false)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(calls.swap(0, Relaxed), 1);

    let reads = layer.retry(Retry::new().reads("/grpc.health.v1.Health/Check"));
    let mut reading = HealthClient::new(reads.layer(unavailable));
    reading.check(check("b", false)).await.unwrap();
    assert_eq!(calls.load(Relaxed), 3);
}

/// The layer's service is a channel like any other.
#[tokio::test]
async fn it_can_be_cloned_and_boxed() {
    let channel = channel(serve(&store()).await).await;
    let service: RywClientService<Channel> = RywClientLayer::new(Session::new()).layer(channel);
    let boxed = service.clone().map_response(|response: http::Response<LearnBody<Body>>| response.map(Body::new));
    let boxed = boxed.boxed_clone();
    let mut client = HealthClient::new(boxed);
    client.check(check("a", false)).await.unwrap();
}
