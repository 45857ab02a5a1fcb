//! Connections, each of which has a deadline for what it asks.

use std::{convert::Infallible, io, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::Service;

/// By when the head of a request has to be there: since the connection was made, or since the last answer. Whoever sends it
/// byte by byte, or nothing at all, takes up a connection for no longer; over HTTP/2, whoever does not answer pings.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait after an error that is not the connection's: there may be too many of them.
const BREATH: Duration = Duration::from_secs(1);
/// What HTTP/2 begins with, when nobody has agreed on it before.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves until `stop`, and then until all requests in flight are answered.
pub(crate) async fn serve(listener: TcpListener, routes: Router, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, routes.clone(), stopped.clone()))),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted");
                    sleep(BREATH).await;
                }
            },
        }
    }
    drop((listener, stopping));
    while connections.join_next().await.is_some() {}
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(stream: TcpStream, routes: Router, mut stopped: watch::Receiver<()>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| answer(routes.clone(), request.map(Body::new)));
    let is_http2 = tokio::select! {
        begun = timeout(HEAD_DEADLINE, begins_with_preface(&stream)) => begun,
        _ = stopped.changed() => return,
    };
    let Ok(Ok(is_http2)) = is_http2 else { return };
    let io = TokioIo::new(stream);
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(HEAD_DEADLINE).keep_alive_timeout(HEAD_DEADLINE);
        until_stopped(builder.serve_connection(io, service), stopped).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
        until_stopped(builder.serve_connection(io, service), stopped).await;
    }
}

/// How a connection ends is its client's own matter.
async fn until_stopped(connection: impl GracefulConnection, mut stopped: watch::Receiver<()>) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

/// Without taking anything of it.
async fn begins_with_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    loop {
        let length = stream.peek(&mut begin).await?;
        if length == 0 || begin[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // Part of it is there, so there is nothing to be woken by.
        sleep(pause).await;
        pause = (2 * pause).min(BREATH);
    }
}

async fn answer(mut routes: Router, request: Request) -> Result<Response, Infallible> {
    routes.call(request).await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use hyper_util::client::legacy::Client;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    async fn start() -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let routes = Router::new().route("/", get("served")).route("/slow", get(slow));
        (address, stop, tokio::spawn(serve(listener, routes, async { drop(stopped.await) })))
    }

    async fn slow() -> &'static str {
        sleep(3 * HEAD_DEADLINE).await;
        "slow"
    }

    /// What comes back until the connection is closed.
    async fn told(stream: &mut TcpStream) -> String {
        let mut told = Vec::new();
        let closed = timeout(10 * HEAD_DEADLINE, stream.read_to_end(&mut told)).await.expect("it is closed");
        // So it is where something was sent that nobody has read.
        let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(closed.as_ref().map_or_else(is_reset, |_| true), "{closed:?}");
        String::from_utf8_lossy(&told).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_come_to_the_end_of_a_head_is_cut_off() {
        let (address, _stop, _serving) = start().await;
        for (sent, answered) in [
            (&b""[..], 0),
            (b"G", 0),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half", 0),
            (&PREFACE[..10], 0),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT", 1),
            (b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n", 1),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            let told = told(&mut stream).await;
            assert_eq!(told.matches("HTTP/1.1 200 OK").count(), answered, "{}: {told}", String::from_utf8_lossy(sent));
        }
    }

    #[tokio::test]
    async fn both_versions_are_spoken() {
        let (address, _stop, _serving) = start().await;
        for http2 in [false, true] {
            let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Body>();
            let answer = client.get(format!("http://{address}/").parse().unwrap()).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version() == hyper::Version::HTTP_2), (200, http2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_what_is_in_flight_is_answered() {
        let (address, stop, serving) = start().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        sleep(HEAD_DEADLINE / 2).await;
        stop.send(()).unwrap();
        assert_eq!(told(&mut idle).await, "");
        assert!(told(&mut busy).await.ends_with("slow"));
        timeout(HEAD_DEADLINE, serving).await.expect("it ends").unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
