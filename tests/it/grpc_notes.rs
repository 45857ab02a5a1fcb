//! A gRPC service with streams of all kinds, over a store whose replicas see nothing before the test is over.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use http::Request as HttpRequest;
use ryw_testing::lagging::LaggingStore;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::NamedService,
    service::Routes,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ryw::{GrpcMethods, GrpcTrailersLayer, Key, Ladder, Route, RywContext, RywLayer, RywStream};

pub(crate) const GET: &str = "/notes.v1.Notes/Get";
pub(crate) const IMPORT: &str = "/notes.v1.Notes/Import";
pub(crate) const APPEND: &str = "/notes.v1.Notes/Append";
pub(crate) const SYNC: &str = "/notes.v1.Notes/Sync";
const SCHEMA: &[u8] = include_bytes!("../../tower-ryw/tests/schema/notes.bin");

pub(crate) type Codec = ProstCodec<String, String>;
type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

pub(crate) fn store() -> LaggingStore {
    LaggingStore::builder().replicas(1).lag(Duration::from_secs(600)).start()
}

/// An instance with marks of its own, on a port of its own.
pub(crate) async fn serve(store: &LaggingStore, with_trailers: bool) -> SocketAddr {
    let methods = GrpcMethods::from_schema(SCHEMA).unwrap().read(&SYNC[1..]);
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .signing_key(Key::new(1, &[7; 32]).unwrap())
        .ladder(Ladder::new().wait(Duration::ZERO))
        .classify(methods)
        .build()
        .unwrap();
    settle(&layer).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener);
    let routes = Routes::new(Notes(store.clone()));
    // Ends with the test's runtime.
    if with_trailers {
        let server = Server::builder().layer(layer).layer(GrpcTrailersLayer::new()).add_routes(routes);
        tokio::spawn(server.serve_with_incoming(incoming));
    } else {
        tokio::spawn(Server::builder().layer(layer).add_routes(routes).serve_with_incoming(incoming));
    }
    address
}

/// A new layer knows that it knows nothing; a read of a session in each of its shards settles that.
async fn settle(layer: &RywLayer) {
    let nothing =
        service_fn(|_: HttpRequest<()>| std::future::ready(Ok::<_, Infallible>(http::Response::new(String::new()))));
    for n in 0..2000 {
        let request = HttpRequest::get("/").header("x-session-id", format!("settle{n}")).body(()).unwrap();
        layer.layer(nothing).oneshot(request).await.unwrap();
    }
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[derive(Clone)]
struct Notes(LaggingStore);

impl Notes {
    fn put(&self, key: &str) {
        self.0.put("notes", key, Some("there".into())).unwrap();
    }

    fn get(&self, route: &Route, key: &str) -> String {
        let found = if self.0.get(route, "notes", key).is_some() { "there" } else { "missing" };
        found.into()
    }

    /// Writes a note for each of the words, one after the other, and says so.
    fn import(self, keys: &str) -> Answers {
        let keys: Vec<_> = keys.split(' ').map(str::to_owned).collect();
        Box::pin(stream::iter(keys).then(move |key| {
            let notes = self.clone();
            async move {
                // The headers have left, and the answer to the one before.
                tokio::task::yield_now().await;
                if key == "break" {
                    std::future::pending::<()>().await;
                }
                notes.put(&key);
                Ok(key)
            }
        }))
    }

    /// Each message is `put key` or `get key`, decided by itself.
    async fn message(&self, session: &RywStream, said: &str) -> Result<String, Status> {
        let (verb, key) = said.split_once(' ').ok_or_else(|| Status::invalid_argument("put or get"))?;
        if verb == "put" {
            let message = session.write().await?;
            self.put(key);
            message.finish().await;
            return Ok("done".into());
        }
        let message = session.read().await?;
        let found = self.get(&message.context().route(), key);
        message.finish().await;
        Ok(found)
    }
}

impl NamedService for Notes {
    const NAME: &'static str = "notes.v1.Notes";
}

impl Service<HttpRequest<Body>> for Notes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let notes = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            let context = RywContext::current().unwrap();
            let response = match request.uri().path() {
                GET => {
                    let get = move |key: Request<String>| {
                        let found = notes.get(&context.route(), key.get_ref());
                        std::future::ready(Ok::<_, Status>(Response::new(found)))
                    };
                    grpc.unary(service_fn(get), request).await
                }
                IMPORT => {
                    let import = move |keys: Request<String>| {
                        let answers = notes.clone().import(keys.get_ref());
                        std::future::ready(Ok::<_, Status>(Response::new(answers)))
                    };
                    grpc.server_streaming(service_fn(import), request).await
                }
                APPEND => {
                    let append = move |keys: Request<Streaming<String>>| {
                        let notes = notes.clone();
                        async move {
                            let mut keys = keys.into_inner();
                            while let Some(key) = keys.message().await? {
                                notes.put(&key);
                            }
                            Ok::<_, Status>(Response::new("done".to_owned()))
                        }
                    };
                    grpc.client_streaming(service_fn(append), request).await
                }
                _ => {
                    // What does not ask anew has the route of the call.
                    let is_blind = request.headers().contains_key("x-blind");
                    let sync = move |said: Request<Streaming<String>>| {
                        let (notes, context) = (notes.clone(), context.clone());
                        let session = context.stream();
                        let answers = said.into_inner().then(move |said| {
                            let (notes, session, context) = (notes.clone(), session.clone(), context.clone());
                            async move {
                                let said = said?;
                                match said.strip_prefix("get ").filter(|_| is_blind) {
                                    Some(key) => Ok(notes.get(&context.route(), key)),
                                    None => notes.message(&session, &said).await,
                                }
                            }
                        });
                        std::future::ready(Ok::<_, Status>(Response::new(Box::pin(answers) as Answers)))
                    };
                    grpc.streaming(service_fn(sync), request).await
                }
            };
            Ok(response)
        })
    }
}
