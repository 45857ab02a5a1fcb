//! Sessions: what they do, and what they see of it.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use ryw_check::{Function, Level, Operation, Outcome};
use ryw_client::{Envelope, Retry, RywClientLayer, RywClientService, Session};
use serde_json::Value as Json;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};

use crate::{
    database::{FIRST_REGISTER, Key},
    judge::{self, Answer, Shown, Written, nobodys, nobodys_write},
    net::{self, Body, HttpClient},
    plan::{LENGTH, Plan},
    service::{CALLED, HOSTS, TROUBLE},
    world::{World, now},
};

const LISTS: Key = 6;
const REGISTERS: Key = 2;
/// Sessions whose writes are ordered have keys of their own: what others write follows nothing.
const ORDERED: Key = 10;
const ACKNOWLEDGED: (&str, &str) = ("ryw-lost", "ack");
const DEADLINE: Duration = Duration::from_millis(160);
/// After this, nothing of a request that was cut short is on its way any more, where nothing else went wrong.
const GRACE: Duration = Duration::from_millis(25);

/// A message between sessions, and the key that it is about.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    id: i64,
    from: String,
    envelope: String,
    key: Key,
}

/// One session, as all of its tabs share it.
#[derive(Clone)]
pub(crate) struct Caller {
    name: String,
    level: Level,
    carries: Carries,
    raw: HttpClient,
}

#[derive(Clone)]
enum Carries {
    /// `ryw-client` carries its tokens.
    Tokens(Session, Box<RywClientService<HttpClient>>),
    /// It only says its name. Whether it has been told of a loss that it has yet to acknowledge.
    Name(Arc<Mutex<bool>>),
}

impl Caller {
    pub(crate) fn with_tokens(name: &str, level: Level) -> Result<Self, Box<dyn std::error::Error>> {
        let hosts = HOSTS.iter().fold(Session::builder(), |session, host| session.send_to(*host));
        let session = hosts.id(name.parse()?).build()?;
        let raw = net::client();
        let guarded = RywClientLayer::new(session.clone()).retry(Retry::never()).layer(raw.clone());
        Ok(Self { name: name.into(), level, carries: Carries::Tokens(session, Box::new(guarded)), raw })
    }

    pub(crate) fn by_name(name: &str, level: Level) -> Self {
        Self { name: name.into(), level, carries: Carries::Name(Arc::default()), raw: net::client() }
    }
}

/// One tab of a session at work.
pub(crate) struct Tab {
    world: World,
    plan: Plan,
    caller: Caller,
    tab: u32,
    rng: Rng,
    /// What was touched last: mostly that is looked at next.
    last: Key,
    /// The first of its keys.
    from: Key,
    /// When it was last told of a loss, among all values and messages.
    told: i64,
}

impl Tab {
    pub(crate) fn new(world: &World, plan: &Plan, caller: Caller, tab: u32, seed: u64) -> Self {
        let from = if matches!(caller.level, Level::Session | Level::Causal) { ORDERED } else { 0 };
        Self {
            world: world.clone(),
            plan: plan.clone(),
            caller,
            tab,
            rng: Rng::with_seed(seed),
            last: from,
            from,
            told: 0,
        }
    }

    pub(crate) async fn work(mut self) {
        sleep(Duration::from_millis(self.rng.u64(..30))).await;
        while now() < LENGTH {
            if self.rng.u8(..10) < 6 {
                sleep(Duration::from_millis(self.rng.u64(..8))).await;
            }
            if self.caller.level == Level::Eventual {
                self.observe().await;
                continue;
            }
            match self.rng.u8(..100) {
                0..=33 => self.write().await,
                34..=41 => self.relayed_write().await,
                42..=50 => self.relayed_read().await,
                51..=56 => self.snap().await,
                57..=61 => self.send(),
                62..=68 => self.receive().await,
                _ => self.read().await,
            }
        }
        self.world.with(|inner| inner.running -= 1);
    }

    fn key(&mut self) -> Key {
        if self.rng.u8(..10) >= 6 {
            self.last = match self.rng.u8(..10) {
                0..=7 => self.list(),
                _ => FIRST_REGISTER + self.from + self.rng.u16(..REGISTERS),
            };
        }
        self.last
    }

    fn list(&mut self) -> Key {
        self.from + self.rng.u16(..LISTS)
    }

    fn op(&self, f: Function, key: Option<Key>) -> Operation {
        Operation {
            s: self.caller.name.clone(),
            tab: self.tab,
            k: key.map(name),
            level: Some(self.caller.level),
            inv: Some(self.world.time()),
            ..Operation::new(f)
        }
    }

    fn add(&self, op: Operation) {
        self.world.with(|inner| inner.histories.guarded.add(op));
    }

    fn done(&self, op: Operation, out: Outcome) {
        let ret = Some(self.world.time());
        self.add(Operation { out, ret, ..op });
    }

    /// Sees what replicas show: whoever else reads that key at this time could have been shown the same.
    async fn observe(&mut self) {
        let key = [0, ORDERED][self.rng.usize(..2)] + self.rng.u16(..LISTS);
        self.read_key(key, path_of(key)).await;
    }

    async fn write(&mut self) {
        let key = self.key();
        let path = if key < FIRST_REGISTER { "list" } else { "reg" };
        self.append(key, path, &HOSTS[..2]).await;
        if self.rng.bool() {
            self.read_key(key, path_of(key)).await;
        }
    }

    async fn relayed_write(&mut self) {
        let key = self.list();
        self.last = key;
        self.append(key, "relay/list", &HOSTS[..2]).await;
        self.read_key(key, "list").await;
    }

    async fn relayed_read(&mut self) {
        let key = if self.last < FIRST_REGISTER { self.last } else { self.from };
        self.read_key(key, "relay/list").await;
    }

    async fn read(&mut self) {
        let key = self.key();
        self.read_key(key, path_of(key)).await;
    }

    async fn append(&mut self, key: Key, path: &str, hosts: &[&str]) {
        let value = self.world.value();
        let mut op = self.op(if key < FIRST_REGISTER { Function::Append } else { Function::Put }, Some(key));
        op.v = Some(value);
        let errors = self.plan.errors;
        let trouble = match self.rng.u8(..100) {
            chance if chance < errors => Some((TROUBLE, "error")),
            chance if chance < errors + 2 => Some((TROUBLE, "panic")),
            _ => None,
        };
        let is_patient = self.rng.u8(..100) >= self.plan.cancels;
        let patience = if is_patient { DEADLINE } else { Duration::from_millis(self.rng.u64(1..25)) };
        let host = hosts[self.rng.usize(..hosts.len())];
        let uri = format!("http://{host}/{path}/{}/{value}", name(key));
        let since = now();
        let answer = self.ask("POST", uri, trouble, patience).await;
        let carries = matches!(self.caller.carries, Carries::Tokens(..));
        let Some(answer) = answer else { return self.unanswered(op, since).await };
        op.ver = answer.version().filter(|_| key >= FIRST_REGISTER);
        let op = answer.served(op);
        match judge::write(&answer, carries, path == "relay/list") {
            Written::Is(out) => self.done(op, out),
            Written::Nobodys { tells_loss } => {
                if tells_loss {
                    self.done(Operation { v: None, ver: None, f: Function::Read, ..op.clone() }, Outcome::Reset);
                }
                self.add(nobodys_write(op));
            }
            Written::Unanswered => self.unanswered(op, since).await,
        }
        self.told(&answer).await;
    }

    /// What was cut short is owed as well, once nothing of it is on its way any more.
    async fn unanswered(&self, op: Operation, since: Duration) {
        sleep(GRACE + self.plan.confirmed_in.unwrap_or_default()).await;
        let ret = self.world.is_quiet_since(since).then(|| self.world.time());
        self.add(Operation { out: Outcome::Info, ret, ..op });
    }

    async fn read_key(&mut self, key: Key, path: &str) {
        let op = self.op(Function::Read, Some(key));
        let host = HOSTS[self.rng.usize(..2)];
        let uri = format!("http://{host}/{path}/{}", name(key));
        self.finish_read(op, uri).await;
    }

    async fn snap(&mut self) {
        let op = self.op(Function::Snap, None);
        let key = self.rng.u16(..LISTS / 2);
        let keys = [self.from + key, self.from + LISTS / 2 + key];
        let host = HOSTS[self.rng.usize(..2)];
        let uri = format!("http://{host}/snap?k={}&k={}", name(keys[0]), name(keys[1]));
        self.finish_read(op, uri).await;
    }

    async fn finish_read(&mut self, op: Operation, uri: String) {
        let Some(answer) = self.ask("GET", uri, None, DEADLINE).await else { return self.done(op, Outcome::Fail) };
        let op = answer.served(op);
        let shown = || Operation { val: answer.val(), ver: answer.version(), ..op.clone() };
        match judge::read(&answer) {
            Shown::Promised(out) => self.done(shown(), out),
            Shown::Nobodys(out) => {
                self.done(op.clone(), out);
                self.done(nobodys(shown()), Outcome::Ok);
            }
            Shown::Nothing(out) => self.done(op, out),
        }
        self.told(&answer).await;
    }

    /// Heeds what an answer says about a loss. A write that was refused because of one has told of it too.
    async fn told(&mut self, answer: &Answer) {
        if !answer.tells_loss() {
            return;
        }
        if answer.status != StatusCode::OK {
            let op = self.op(Function::Read, Some(self.from));
            self.done(op, Outcome::Reset);
        }
        self.world.with(|inner| inner.count("told"));
        match &self.caller.carries {
            Carries::Tokens(session, _) => {
                session.acknowledge_lost();
            }
            Carries::Name(acknowledges) => *acknowledges.lock() = true,
        }
        // The called service keeps marks of its own, and has to hear of it as well.
        for host in [HOSTS[self.rng.usize(..2)], HOSTS[CALLED]] {
            let uri = format!("http://{host}/list/{}", name(self.from));
            let op = self.op(Function::Read, Some(self.from));
            let answer = self.ask("GET", uri, Some(ACKNOWLEDGED), DEADLINE).await;
            let tells_loss = answer.is_some_and(|answer| answer.tells_loss());
            self.done(op, if tells_loss { Outcome::Reset } else { Outcome::Fail });
        }
        self.told = self.world.value();
    }

    fn send(&mut self) {
        let Carries::Tokens(session, _) = &self.caller.carries else { return };
        if self.from != ORDERED {
            return;
        }
        let mut op = self.op(Function::Send, None);
        let id = self.world.value();
        let letter =
            Letter { id, from: self.caller.name.clone(), envelope: session.envelope().to_string(), key: self.last };
        self.world.with(|inner| inner.mailbox.push(letter));
        op.msg = Some(id);
        self.done(op, Outcome::Ok);
    }

    /// Takes the newest message of somebody else, and looks at once. Messages may be received twice. What was sent before this
    /// session was told of a loss may be about what it knows to be lost: it has no use for that.
    async fn receive(&mut self) {
        let Carries::Tokens(session, _) = &self.caller.carries else { return };
        let own = &self.caller.name;
        let letter = self.world.with(|inner| inner.mailbox.iter().rev().find(|letter| letter.from != *own).cloned());
        let Some(letter) = letter.filter(|letter| letter.id > self.told && self.from == ORDERED) else { return };
        let Ok(envelope) = letter.envelope.parse::<Envelope>() else { return };
        let mut op = self.op(Function::Recv, None);
        op.msg = Some(letter.id);
        session.join(&envelope);
        self.done(op, Outcome::Ok);
        self.last = letter.key;
        let path =
            if letter.key < FIRST_REGISTER && self.rng.u8(..3) == 0 { "relay/list" } else { path_of(letter.key) };
        self.read_key(letter.key, path).await;
    }

    /// `None` where there is no answer, or not in time.
    async fn ask(
        &self,
        method: &str,
        uri: String,
        extra: Option<(&'static str, &'static str)>,
        patience: Duration,
    ) -> Option<Answer> {
        let asked = format!("{method} {uri} {}", extra.map_or("", |(name, _)| name));
        let since = now();
        let mut request =
            Request::builder().method(method).uri(uri).header("x-consistency-level", self.caller.level.as_str());
        if let Some((name, value)) = extra {
            request = request.header(name, value);
        }
        let answer = async {
            match &self.caller.carries {
                Carries::Tokens(_, client) => {
                    let response = (**client).clone().oneshot(request.body(Body::default()).ok()?).await.ok()?;
                    collect(response).await
                }
                Carries::Name(acknowledges) => {
                    request = request.header("x-session-id", &self.caller.name);
                    let acknowledged = std::mem::take(&mut *acknowledges.lock());
                    if acknowledged && extra != Some(ACKNOWLEDGED) {
                        request = request.header("ryw-lost", "ack");
                    }
                    collect(self.caller.raw.request(request.body(Body::default()).ok()?).await.ok()?).await
                }
            }
        };
        let answer = timeout(patience, answer).await.ok().flatten();
        self.note(since, &asked, answer.as_ref());
        answer
    }

    /// Keeps what an answer has said.
    fn note(&self, since: Duration, asked: &str, answer: Option<&Answer>) {
        let said = answer.map_or_else(
            || "no answer".to_owned(),
            |answer| {
                let text = |name| answer.text(name).unwrap_or("-");
                let lost = answer.text("ryw-lost").or(answer.text("x-relayed-ryw-lost")).unwrap_or("-");
                let (route, enforced) = (text("ryw-route"), text("x-consistency-enforced"));
                format!("{} {route} enforced={enforced} lost={lost} token={}", answer.status, answer.has("ryw-token"))
            },
        );
        let (name, tab) = (&self.caller.name, self.tab);
        let line = format!("{}-{} ms {name}/{tab} {asked} {said}\n", since.as_millis(), now().as_millis());
        self.world.with(|inner| inner.answers.push_str(&line));
    }
}

async fn collect<B>(response: http::Response<B>) -> Option<Answer>
where
    B: http_body::Body,
{
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.ok()?.to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Json::Null);
    Some(Answer { status: parts.status, headers: parts.headers, body })
}

fn name(key: Key) -> String {
    if key < FIRST_REGISTER { format!("k{key}") } else { format!("r{key}") }
}

const fn path_of(key: Key) -> &'static str {
    if key < FIRST_REGISTER { "list" } else { "reg" }
}

/// All keys and their names.
pub(crate) fn keys() -> impl Iterator<Item = (Key, String)> {
    let of = |from: Key| (from..from + LISTS).chain(FIRST_REGISTER + from..FIRST_REGISTER + from + REGISTERS);
    of(0).chain(of(ORDERED)).map(|key| (key, name(key)))
}

/// The positive control: a session that nothing guards writes, and reads a replica at once.
pub(crate) async fn control(world: World) {
    const KEY: Key = 50;
    let client = net::client();
    while now() < LENGTH {
        sleep(Duration::from_millis(20)).await;
        let value = world.value();
        for (method, path) in [("POST", format!("/raw/{}/{value}", name(KEY))), ("GET", format!("/raw/{}", name(KEY)))]
        {
            let is_write = method == "POST";
            let op = Operation {
                s: "control".into(),
                k: Some(name(KEY)),
                v: is_write.then_some(value),
                inv: Some(world.time()),
                ..Operation::new(if is_write { Function::Append } else { Function::Read })
            };
            let request =
                Request::builder().method(method).uri(format!("http://{}{path}", HOSTS[0])).body(Body::default());
            let Ok(request) = request else { continue };
            let answer = timeout(DEADLINE, async { collect(client.request(request).await.ok()?).await }).await;
            let ret = Some(world.time());
            let (out, val) = match answer.ok().flatten().filter(|answer| answer.status == StatusCode::OK) {
                Some(answer) => (Outcome::Ok, answer.val()),
                None if is_write => (Outcome::Info, None),
                None => (Outcome::Fail, None),
            };
            let op = Operation { ret, out, val, ..op };
            world.with(|inner| inner.histories.control.add(op));
        }
    }
    world.with(|inner| inner.running -= 1);
}
