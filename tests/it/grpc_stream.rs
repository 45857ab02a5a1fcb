//! gRPC streams over real sockets: each message is decided anew, and the token comes in the trailers.

use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use ryw_client::{RywClientLayer, Session};
use tokio::sync::mpsc;
use tonic::{
    Request, Streaming,
    client::{Grpc, GrpcService},
    metadata::MetadataMap,
    transport::Channel,
};
use tower::Layer;

use crate::grpc_notes::{APPEND, Codec, GET, IMPORT, SYNC, channel, serve, store};

type Metadata<'a> = &'a [(&'static str, &'a str)];

fn with<M>(message: M, metadata: Metadata<'_>) -> Request<M> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

async fn client(address: SocketAddr) -> Grpc<Channel> {
    let mut grpc = Grpc::new(channel(address).await);
    grpc.ready().await.unwrap();
    grpc
}

const fn path(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

async fn get(address: SocketAddr, key: &str, metadata: Metadata<'_>) -> String {
    let mut grpc = client(address).await;
    grpc.unary(with(key.to_owned(), metadata), path(GET), Codec::default()).await.unwrap().into_inner()
}

fn token(metadata: &MetadataMap) -> Option<String> {
    Some(metadata.get("ryw-token")?.to_str().unwrap().to_owned())
}

/// Imports the notes; what the headers and what the trailers said.
async fn import(address: SocketAddr, keys: &str) -> (Option<String>, Option<String>) {
    let mut grpc = client(address).await;
    let request = with(keys.to_owned(), &[]);
    let response = grpc.server_streaming(request, path(IMPORT), Codec::default()).await.unwrap();
    let before = token(response.metadata());
    let mut answers: Streaming<String> = response.into_inner();
    let mut count = 0;
    while answers.message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, keys.split(' ').count());
    (before, answers.trailers().await.unwrap().as_ref().and_then(token))
}

#[tokio::test]
async fn a_streamed_writes_token_comes_in_the_trailers() {
    const ROUNDS: usize = 10;
    let store = store();
    let (writes, reads) = (serve(&store, true).await, serve(&store, true).await);
    let (mut stale_without, mut stale_before, mut stale_with) = (0, 0, 0);
    for round in 0..ROUNDS {
        let (key, keys) = (format!("c{round}"), format!("a{round} b{round} c{round}"));
        let (headers, trailers) = import(writes, &keys).await;
        let is_stale = async |token: &[(&'static str, &str)]| usize::from(get(reads, &key, token).await == "missing");
        stale_without += is_stale(&[]).await;
        // What the headers say is from before the stream: it helps no one but for what earlier rounds have written.
        stale_before += is_stale(&[("ryw-token", &headers.unwrap())]).await;
        stale_with += is_stale(&[("ryw-token", &trailers.unwrap())]).await;
    }
    assert_eq!(stale_without, ROUNDS, "dropping the token was harmless");
    assert_eq!((stale_before, stale_with), (1, 0));
}

/// So the layer makes the difference.
#[tokio::test]
async fn without_the_layer_there_is_none() {
    let (headers, trailers) = import(serve(&store(), false).await, "a b").await;
    assert!(headers.is_some() && trailers.is_none(), "{headers:?} {trailers:?}");
}

#[tokio::test]
async fn a_client_learns_from_the_trailers_by_itself() {
    let store = store();
    let (writes, reads) = (serve(&store, true).await, serve(&store, true).await);
    let session = Session::builder().send_to("127.0.0.1").build().unwrap();
    let layer = RywClientLayer::new(session);
    let mut writer = Grpc::new(layer.layer(channel(writes).await));
    writer.ready().await.unwrap();
    let response = writer.server_streaming(with("a b".to_owned(), &[]), path(IMPORT), Codec::default()).await.unwrap();
    let answers: Vec<_> = response.into_inner().collect().await;
    assert_eq!(answers.len(), 2);
    assert_eq!(read_by(layer.layer(channel(reads).await), "b").await, "there");
    assert_eq!(read_by(channel(reads).await, "b").await, "missing");
}

async fn read_by<T>(service: T, key: &str) -> String
where
    T: GrpcService<tonic::body::Body>,
    T::ResponseBody: tonic::codegen::Body + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError>,
    T::Error: std::fmt::Debug,
{
    let mut reader = Grpc::new(service);
    reader.ready().await.unwrap();
    reader.unary(with(key.to_owned(), &[]), path(GET), Codec::default()).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_client_stream_is_answered_with_the_token_of_all_of_it() {
    let store = store();
    let (writes, reads) = (serve(&store, true).await, serve(&store, true).await);
    let keys = stream::iter(["a", "b", "c"].map(str::to_owned));
    let response =
        client(writes).await.client_streaming(with(keys, &[]), path(APPEND), Codec::default()).await.unwrap();
    let token = token(response.metadata()).unwrap();
    assert_eq!(get(reads, "c", &[]).await, "missing");
    assert_eq!(get(reads, "c", &[("ryw-token", &token)]).await, "there");
}

/// A call of messages in both directions, and what it answers.
async fn sync(address: SocketAddr, metadata: Metadata<'_>) -> (mpsc::Sender<String>, Streaming<String>) {
    let (sender, receiver) = mpsc::channel::<String>(1);
    let said = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let request = with(Box::pin(said), metadata);
    let response = client(address).await.streaming(request, path(SYNC), Codec::default()).await.unwrap();
    (sender, response.into_inner())
}

#[tokio::test]
async fn each_message_of_a_call_is_decided_anew() {
    let store = store();
    let address = serve(&store, true).await;
    let me = ("x-session-id", "me");
    let (blind, mut blind_answers) = sync(address, &[me, ("x-blind", "1")]).await;
    let (asking, mut answers) = sync(address, &[me]).await;
    let say = async |to: &mpsc::Sender<String>, answers: &mut Streaming<String>, said: &str| {
        to.send(said.to_owned()).await.unwrap();
        answers.message().await.unwrap().unwrap()
    };
    assert_eq!(say(&asking, &mut answers, "get a").await, "missing");
    assert_eq!(say(&blind, &mut blind_answers, "get a").await, "missing");
    // One call of the session writes, and the other one is open already.
    assert_eq!(say(&blind, &mut blind_answers, "put a").await, "done");
    assert_eq!(say(&asking, &mut answers, "get a").await, "there");
    // So does another request.
    let mut grpc = client(address).await;
    let keys = stream::iter(["b".to_owned()]);
    grpc.client_streaming(with(keys, &[me]), path(APPEND), Codec::default()).await.unwrap();
    assert_eq!(say(&asking, &mut answers, "get b").await, "there");
    let (late_blind, mut late_answers) = sync(address, &[("x-session-id", "other"), ("x-blind", "1")]).await;
    let keys = stream::iter(["c".to_owned()]);
    let mut grpc = client(address).await;
    grpc.client_streaming(with(keys, &[("x-session-id", "other")]), path(APPEND), Codec::default()).await.unwrap();
    assert_eq!(say(&late_blind, &mut late_answers, "get c").await, "missing", "who does not ask is stale");
    // What a call of reads has written is in its trailers too.
    assert_eq!(say(&asking, &mut answers, "put d").await, "done");
    drop(asking);
    assert!(answers.message().await.unwrap().is_none());
    let token = answers.trailers().await.unwrap().as_ref().and_then(token).unwrap();
    let elsewhere = get(serve(&store, true).await, "d", &[("ryw-token", &token)]).await;
    assert_eq!(elsewhere, "there");
}

#[tokio::test]
async fn a_stream_that_is_cut_short_leaves_an_unknown_outcome() {
    let store = store();
    let address = serve(&store, true).await;
    let me = ("x-session-id", "me");
    let mut grpc = client(address).await;
    let request = with("a break b".to_owned(), &[me]);
    let response = grpc.server_streaming(request, path(IMPORT), Codec::default()).await.unwrap();
    let mut answers: Streaming<String> = response.into_inner();
    assert_eq!(answers.message().await.unwrap().as_deref(), Some("a"));
    // The mark of the headers lies before the note: by it a replica would do.
    assert_eq!(get(address, "a", &[me]).await, "missing");
    drop(answers);
    drop(grpc);
    let mut found = String::new();
    for _ in 0..500 {
        found = get(address, "a", &[me]).await;
        if found == "there" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(found, "there");
}
