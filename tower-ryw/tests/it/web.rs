//! WebSockets and server-sent events over real sockets, in axum.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, time::Duration};

use axum::{
    Router,
    extract::{
        Path, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use ryw_testing::lagging::LaggingStore;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite};
use tower_ryw::{Key, Ladder, RywContext, RywLayer, RywStream};

use crate::harness::{request, values};

/// An instance with marks of its own, over a store whose replica sees nothing before the test is over.
struct Instance {
    address: SocketAddr,
    app: Router,
}

fn store() -> LaggingStore {
    LaggingStore::builder().replicas(1).lag(Duration::from_secs(600)).start()
}

async fn serve(store: &LaggingStore) -> Instance {
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .signing_key(Key::new(1, &[7; 32]).unwrap())
        .ladder(Ladder::new().wait(Duration::ZERO))
        .event_ids(true)
        .build()
        .unwrap();
    let own = Router::new().route("/ws", get(open)).route("/events/{key}", get(events)).with_state(store.clone());
    let app = own.merge(values(store.clone())).layer(layer);
    let instance = Instance { address: listen(app.clone()).await, app };
    for n in 0..2000 {
        instance.get("x", &[("x-session-id", &format!("settle{n}"))]).await;
    }
    instance
}

/// Serves until the test's runtime ends.
async fn listen(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

impl Instance {
    async fn get(&self, key: &str, headers: &[(&str, &str)]) -> String {
        self.send("GET", key, headers).await.body
    }

    async fn send(&self, method: &str, key: &str, headers: &[(&str, &str)]) -> crate::harness::Answer {
        let request = request(method, &format!("/v/{key}"), headers, "new");
        crate::harness::answer(tower::ServiceExt::oneshot(self.app.clone(), request).await).await
    }
}

async fn open(State(store): State<LaggingStore>, ryw: RywContext, upgrade: WebSocketUpgrade) -> Response {
    let (session, at_upgrade) = (ryw.stream(), ryw.route());
    upgrade.on_upgrade(move |socket| async move { converse(socket, store, session, at_upgrade).await })
}

/// `put`, `get`, `blind` (by the route of the upgrade) with a key, or `token` with one that the client has.
async fn converse(mut socket: WebSocket, store: LaggingStore, session: RywStream, at_upgrade: tower_ryw::Route) {
    let look = |route: &tower_ryw::Route, key: &str| match store.get(route, "t", key) {
        Some(_) => "new".to_owned(),
        None => "nothing".to_owned(),
    };
    while let Some(Ok(Message::Text(said))) = socket.recv().await {
        let (verb, argument) = said.split_once(' ').unwrap();
        let answer = match verb {
            "put" => {
                let message = session.write().await.unwrap();
                store.put("t", argument, Some("new".into())).unwrap();
                // In this order: what tells of the write comes after its mark.
                message.finish().await.token.unwrap()
            }
            "token" => {
                session.join_token(argument);
                "joined".into()
            }
            "blind" => look(&at_upgrade, argument),
            _ => {
                let message = session.read().await.unwrap();
                let found = look(&message.context().route(), argument);
                message.finish().await;
                found
            }
        };
        if socket.send(Message::Text(answer.into())).await.is_err() {
            return;
        }
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn connect(instance: &Instance) -> Self {
        let url = format!("ws://{}/ws", instance.address);
        Self(tokio_tungstenite::connect_async(url).await.unwrap().0)
    }

    async fn say(&mut self, said: &str) -> String {
        self.0.send(tungstenite::Message::text(said)).await.unwrap();
        self.0.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    }
}

#[tokio::test]
async fn each_message_of_a_web_socket_is_decided_anew() {
    let store = store();
    let (here, elsewhere) = (serve(&store).await, serve(&store).await);
    let mut socket = Socket::connect(&here).await;
    assert_eq!(socket.say("get a").await, "nothing");
    let token = socket.say("put a").await;
    assert_eq!(socket.say("get a").await, "new");
    assert_eq!(socket.say("blind a").await, "nothing", "the route of the upgrade is stale");
    // Whoever carries what the socket said sees it at another instance, and whoever does not does not.
    assert_eq!(elsewhere.get("a", &[("ryw-token", &token)]).await, "new");
    assert_eq!(elsewhere.get("a", &[]).await, "nothing");
}

#[tokio::test]
async fn a_web_socket_learns_of_a_write_that_was_made_elsewhere() {
    let store = store();
    let (here, elsewhere) = (serve(&store).await, serve(&store).await);
    let mut socket = Socket::connect(&here).await;
    let token = elsewhere.send("PUT", "a", &[]).await.header("ryw-token").unwrap().to_owned();
    assert_eq!(socket.say("get a").await, "nothing");
    assert_eq!(socket.say(&format!("token {token}")).await, "joined");
    assert_eq!(socket.say("get a").await, "new");
}

type Events = Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>>;

/// What a first event writes a later one reads, also on a connection of its own.
async fn events(
    State(store): State<LaggingStore>,
    Path(key): Path<String>,
    headers: HeaderMap,
    ryw: RywContext,
) -> impl IntoResponse {
    let session = ryw.stream();
    let last = headers.get("last-event-id").map_or("", |id| id.to_str().unwrap());
    let number: u32 = RywStream::own_event_id(last).parse().unwrap_or(0);
    let events: Events = Box::pin(stream::iter(number + 1..number + 3).then(move |number| {
        let (store, key, session) = (store.clone(), key.clone(), session.clone());
        async move {
            let is_first = number == 1;
            let message = if is_first { session.write().await } else { session.read().await }.unwrap();
            let data = if is_first {
                store.put("t", &key, Some("new".into())).unwrap();
                "written"
            } else {
                let found = store.get(&message.context().route(), "t", &key);
                found.map_or("nothing", |_| "new")
            };
            message.finish().await;
            Ok(Event::default().id(session.event_id(&number.to_string())).data(data))
        }
    }));
    Sse::new(events)
}

/// As `EventSource` does it: what each event said, and its id.
async fn event(lines: &mut Lines<BufReader<TcpStream>>) -> (String, String) {
    let (mut id, mut data) = (String::new(), String::new());
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(value) = line.strip_prefix("id: ") {
            id = value.into();
        } else if let Some(value) = line.strip_prefix("data: ") {
            data = value.into();
        } else if line.is_empty() && !data.is_empty() {
            return (id, data);
        }
    }
}

async fn connect(instance: &Instance, key: &str, last: Option<&str>) -> Lines<BufReader<TcpStream>> {
    let mut socket = TcpStream::connect(instance.address).await.unwrap();
    let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let request = format!("GET /events/{key} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n{last}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(socket).lines()
}

#[tokio::test]
async fn an_event_source_that_connects_again_brings_what_it_saw() {
    let store = store();
    let (here, elsewhere) = (serve(&store).await, serve(&store).await);
    let mut events = connect(&here, "a", None).await;
    let (id, data) = event(&mut events).await;
    assert_eq!((data.as_str(), RywStream::own_event_id(&id)), ("written", "1"));
    assert_eq!(event(&mut events).await.1, "new", "the same stream sees what it wrote");
    drop(events);
    let mut again = connect(&elsewhere, "a", Some(&id)).await;
    let (later, data) = event(&mut again).await;
    assert_eq!((data.as_str(), RywStream::own_event_id(&later)), ("new", "2"));
    // The service's own id alone says nothing of what was written.
    let mut stranger = connect(&elsewhere, "a", Some("1;")).await;
    assert_eq!(event(&mut stranger).await.1, "nothing");
}
