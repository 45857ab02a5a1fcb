//! The service: handlers ask the request's context where to read.

use std::{error::Error, net::SocketAddr, time::Duration};

use ryw_testing::lagging::LaggingStore;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tower_ryw::{Intent, Level, Route, RouteRule, RywContext, RywLayer};

use crate::pb::{
    GetReply, GetRequest, PutReply, PutRequest,
    notes_server::{Notes, NotesServer},
};

/// For each call.
const TIMEOUT: Duration = Duration::from_secs(10);
const SPACE: &str = "notes";

struct Service(LaggingStore);

pub(crate) async fn run(listen: SocketAddr, lag_ms: u64) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    let store = LaggingStore::builder().lag(Duration::from_millis(lag_ms)).start();
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .default_level(Level::ReadYourWrites)
        // All of gRPC is POST: which calls read has to be said.
        .route(RouteRule::new("/notes.v1.Notes/Get").intent(Intent::Read))
        .build()?;
    println!("grpc-notes listens on http://{}", listener.local_addr()?);
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("{error}");
        }
    };
    let server = Server::builder().timeout(TIMEOUT).layer(layer).add_service(NotesServer::new(Service(store)));
    server.serve_with_incoming_shutdown(TcpIncoming::from(listener), interrupted).await?;
    Ok(())
}

#[tonic::async_trait]
impl Notes for Service {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let PutRequest { name, text } = request.into_inner();
        self.0.put(SPACE, &name, Some(text.into())).map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(Response::new(PutReply {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let route = RywContext::current().map_or(Route::Primary, |context| context.route());
        let text = self.0.get(&route, SPACE, &request.into_inner().name);
        let text = text.ok_or_else(|| Status::not_found("there is no note of this name"))?;
        Ok(Response::new(GetReply { text: String::from_utf8_lossy(&text).into_owned() }))
    }
}
