//! A gateway that runs, and a client that talks to it.

use std::{net::SocketAddr, sync::Arc};

use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::program::{DEADLINE, command};

/// Headers of a request.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

/// Killed when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
    /// Held, because a program whose output nobody reads fails when it prints.
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Arc<Mutex<String>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Who served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) level: String,
}

impl Gateway {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::from(command(&[&["--listen", "127.0.0.1:0"], arguments].concat())).await
    }

    /// Starts the command and waits until it listens.
    pub(crate) async fn from(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
                kept.lock().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, stdout.next_line()).await.expect("it says where it listens").unwrap();
        let line = line.unwrap_or_else(|| panic!("it ended: {}", stderr.lock()));
        let address = line.strip_prefix("memory-gateway listens on http://").and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, child, stdout, stderr, client }
    }

    /// Where its page for operators is, once it has said so.
    pub(crate) async fn console(&mut self) -> String {
        loop {
            let line = timeout(DEADLINE, self.stdout.next_line()).await.expect("it says where the page is").unwrap();
            if let Some(url) = line.expect("it has a page").strip_prefix("operators look at ") {
                return url.to_owned();
            }
        }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: Headers<'_>, body: impl Into<Bytes>) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = self.client.request(request.body(Full::new(body.into())).unwrap());
        let response = timeout(DEADLINE, sent).await.expect("it answers").expect("it keeps the connection");
        let (parts, body) = response.into_parts();
        let body = timeout(DEADLINE, body.collect()).await.expect("it answers in full").unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str, headers: Headers<'_>) -> Reply {
        self.send("GET", path, headers, "").await
    }

    /// Stores a value, which must succeed.
    pub(crate) async fn put(&self, path: &str, headers: Headers<'_>, value: impl Into<Bytes>) -> Reply {
        let reply = self.send("PUT", path, headers, value).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{reply:?}");
        reply
    }

    /// The sum of a metric's series, 0 when there are none.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics", &[]).await.text();
        let value = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            value.parse::<u64>().ok().filter(|_| labels.is_empty() || labels.starts_with('{'))
        };
        text.lines().filter_map(value).sum()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.lock().clone()
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// What `Ryw-Route` says: an item with parameters.
    pub(crate) fn served(&self) -> Served {
        let route = self.header("ryw-route").unwrap_or_else(|| panic!("no Ryw-Route: {self:?}"));
        let mut parts = route.split(';');
        let by = parts.next().unwrap_or_default().to_owned();
        let parameter = |name: &str| {
            let value = parts.clone().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("no {name} in {route}")).to_owned()
        };
        Served { by, reason: parameter("reason"), level: parameter("level") }
    }
}
