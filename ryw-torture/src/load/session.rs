//! What the sessions do.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use ryw_check::{Function, Level, Operation, Outcome, Value};
use tokio::{task::JoinSet, time::sleep};

use super::{
    BOUND, Shared,
    client::{Call, Carrier},
    floors::{Floors, Promises},
    judge::{self, Answer, Read},
    keys::Keys,
    promises,
};

/// How many messages may wait for one session; what comes beyond is not sent.
const INBOX: usize = 8;
/// After an answer that was none.
const PAUSE: Duration = Duration::from_millis(20);

/// The sessions of one level.
#[derive(Debug)]
pub(super) struct Group {
    level: Level,
    promises: Promises,
    keys: Keys,
    /// What waits for each member.
    inboxes: Vec<Mutex<VecDeque<Message>>>,
}

#[derive(Debug)]
struct Message {
    id: i64,
    envelope: String,
    /// Which key it is about.
    key: String,
}

/// A session.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) number: usize,
    pub(super) group: Arc<Group>,
    pub(super) carrier: Carrier,
    pub(super) floors: Mutex<Floors>,
}

impl Group {
    pub(super) fn new(level: Level, keys: Keys, members: usize) -> Self {
        Self { level, promises: promises(level), keys, inboxes: (0..members).map(|_| Mutex::default()).collect() }
    }
}

/// One tab of a session.
struct Tab {
    shared: Arc<Shared>,
    member: Arc<Member>,
    number: u32,
    rng: fastrand::Rng,
    /// Where this tab was last.
    recent: String,
    /// Which instance it has asked last.
    asked: String,
}

/// A session with its two tabs, until the load stops.
pub(super) async fn browse(shared: Arc<Shared>, member: Arc<Member>, mut rng: fastrand::Rng) {
    let tab = |number, rng: &mut fastrand::Rng| Tab {
        recent: member.group.keys.any(rng),
        shared: Arc::clone(&shared),
        member: Arc::clone(&member),
        number,
        rng: rng.fork(),
        asked: String::new(),
    };
    let mut first = tab(0, &mut rng);
    // A browser's first answer gives the session its name: two tabs that begin at once would be two sessions.
    while !*shared.stopped.borrow() && !first.write().await {}
    // Owned by this future: dropping it ends both.
    let mut tabs = JoinSet::new();
    tabs.spawn(first.run());
    tabs.spawn(tab(1, &mut rng).run());
    while tabs.join_next().await.is_some() {}
}

impl Tab {
    async fn run(mut self) {
        while !*self.shared.stopped.borrow() {
            let message = self.inbox(self.member.number).lock().pop_front();
            if let Some(message) = message {
                self.receive(message).await;
                continue;
            }
            let sends = self.member.group.level == Level::Causal;
            match self.rng.u32(..100) {
                ..22 => {
                    if self.write().await && self.rng.u32(..10) < 7 {
                        self.read().await;
                    }
                }
                22..28 if self.member.group.level == Level::Ryw => self.put_and_read().await,
                28..34 => self.snapshot().await,
                34..42 if sends => self.send(),
                42..60 => {
                    self.recent = self.member.group.keys.any(&mut self.rng);
                    self.read().await;
                }
                _ => self.read().await,
            }
        }
    }

    fn inbox(&self, member: usize) -> &Mutex<VecDeque<Message>> {
        &self.member.group.inboxes[member]
    }

    /// Appends to a list. Returns whether it was acknowledged.
    async fn write(&mut self) -> bool {
        let value = self.shared.values.fetch_add(1, Relaxed) + 1;
        self.recent = self.member.group.keys.for_value(&mut self.rng);
        let owed = self.member.floors.lock().owed(&self.recent);
        let mut line = self.line(Function::Append, Some(self.recent.clone()));
        line.v = Some(value);
        let (answer, _) = self.call(Method::POST, &format!("/list/{}", self.recent), value.to_string(), true).await;
        let acknowledged = self.written(line, answer.as_ref());
        if acknowledged {
            self.member.floors.lock().wrote(&self.recent, value, &owed);
        }
        if answer.is_none() {
            self.pause().await;
        }
        acknowledged
    }

    /// Writes a register and reads it.
    async fn put_and_read(&mut self) {
        let key = format!("reg-{}", self.member.group.keys.any(&mut self.rng));
        let path = format!("/reg/{key}");
        if self.rng.bool() {
            let value = self.shared.values.fetch_add(1, Relaxed) + 1;
            let mut line = self.line(Function::Put, Some(key.clone()));
            line.v = Some(value);
            let (answer, body) = self.call(Method::POST, &path, value.to_string(), true).await;
            line.ver = serde_json::from_slice(&body).ok().filter(|_| answer.as_ref().is_some_and(Answer::succeeded));
            self.written(line, answer.as_ref());
        }
        let line = self.line(Function::Read, Some(key));
        let (answer, body) = self.call(Method::GET, &path, String::new(), false).await;
        let Some(answer) = answer else { return self.pause().await };
        let shown: Option<Option<(i64, i64)>> = serde_json::from_slice(&body).ok().filter(|_| answer.succeeded());
        let line = Operation { ver: shown.flatten().map(|(_, version)| version), ..line };
        let value = shown.map(|shown| Value::Register(shown.map(|(value, _)| value)));
        self.shown(line, &answer, value).await;
    }

    /// Reads where this tab was last; sometimes also without the layer, to see what that would have shown.
    async fn read(&mut self) {
        let key = self.recent.clone();
        let path = format!("/list/{key}");
        let owed = self.member.floors.lock().owed(&key);
        let line = self.line(Function::Read, Some(key.clone()));
        let shadowed = self.shared.settings.ungated.is_some() && self.rng.u32(..6) == 0;
        let target = self.target();
        let shared = Arc::clone(&self.shared);
        let shadow = async {
            if shadowed {
                shadow(&shared, &target, &key).await;
            }
        };
        let ((answer, body), ()) = tokio::join!(self.call(Method::GET, &path, String::new(), false), shadow);
        let Some(answer) = answer else { return self.pause().await };
        let shown: Option<Vec<i64>> = serde_json::from_slice(&body).ok().filter(|_| answer.succeeded());
        if let (Some(shown), Read::Promised) = (&shown, judge::read(&answer)) {
            let wrong = self.member.floors.lock().read(&key, shown, &owed, self.member.group.promises);
            if let Some(wrong) = wrong {
                let session = &self.member.name;
                self.shared.found.lock().get_or_insert_with(|| format!("session {session}: {wrong}: {answer:?}"));
            }
        }
        self.shown(line, &answer, shown.map(Value::List)).await;
    }

    /// Several lists at once.
    async fn snapshot(&mut self) {
        let keys: Vec<String> = (0..3).map(|_| self.member.group.keys.any(&mut self.rng)).collect();
        let line = self.line(Function::Snap, None);
        let path = format!("/snap?k={}&k={}&k={}", keys[0], keys[1], keys[2]);
        let (answer, body) = self.call(Method::GET, &path, String::new(), false).await;
        let Some(answer) = answer else { return self.pause().await };
        let shown = serde_json::from_slice(&body).ok().filter(|_| answer.succeeded()).map(Value::Snapshot);
        self.shown(line, &answer, shown).await;
    }

    /// Tells another session of the group where this one was last.
    fn send(&mut self) {
        let members = self.member.group.inboxes.len();
        let to = self.rng.usize(..members);
        let mut line = self.line(Function::Send, None);
        if to == self.member.number || self.inbox(to).lock().len() >= INBOX {
            return;
        }
        let Some(envelope) = self.member.carrier.envelope() else { return };
        let id = self.shared.values.fetch_add(1, Relaxed) + 1;
        (line.msg, line.ret) = (Some(id), Some(self.shared.history.now()));
        self.shared.history.write(line);
        self.inbox(to).lock().push_back(Message { id, envelope, key: self.recent.clone() });
    }

    /// Takes a message and looks at once at what it is about.
    async fn receive(&mut self, message: Message) {
        let mut line = self.line(Function::Recv, None);
        if let Err(error) = self.member.carrier.join(&message.envelope) {
            self.shared.found.lock().get_or_insert_with(|| error.to_string());
        }
        (line.msg, line.ret) = (Some(message.id), Some(self.shared.history.now()));
        self.shared.history.write(line);
        self.recent = message.key;
        self.read().await;
    }

    fn line(&self, f: Function, key: Option<String>) -> Operation {
        Operation {
            s: self.member.name.clone(),
            tab: self.number,
            k: key,
            inv: Some(self.shared.history.now()),
            level: Some(self.member.group.level),
            ..Operation::new(f)
        }
    }

    fn target(&mut self) -> String {
        let targets = &self.shared.settings.targets;
        targets[self.rng.usize(..targets.len())].clone()
    }

    async fn call(&mut self, method: Method, path: &str, body: String, write: bool) -> (Option<Answer>, Bytes) {
        let cancelled = self.rng.u32(..1000) < self.shared.settings.cancelled;
        let level = match self.member.group.level {
            Level::Bounded => format!("{};max={}", Level::Bounded.as_str(), BOUND.as_millis()),
            level => level.as_str().to_owned(),
        };
        self.asked = self.target();
        let call = Call {
            method,
            uri: format!("{}{path}", self.asked),
            level: Some(level),
            body: body.into(),
            cancel: cancelled.then(|| Duration::from_micros(self.rng.u64(100..15_000))),
        };
        let began = self.shared.history.now();
        let answered = self.member.carrier.call(&self.shared.http, call).await;
        let took = Duration::from_nanos(self.shared.history.now() - began);
        let (answer, body) = answered.map_or((None, Bytes::new()), |(answer, body)| (Some(answer), body));
        self.shared.stats.count(answer.as_ref(), write, cancelled, took);
        (answer, body)
    }

    /// Writes down a write. Returns whether it was acknowledged.
    fn written(&self, mut line: Operation, answer: Option<&Answer>) -> bool {
        let now = self.shared.history.now();
        let (outcome, returned) = judge::write(answer);
        line.out = outcome;
        line.ret = returned.then_some(now);
        if let Some(answer) = answer {
            (line.node, line.epoch) = (answer.node.clone(), answer.epoch);
            if answer.lost {
                // The answer to a write can tell it too: beside the write, an operation that only tells.
                let told = Operation { v: None, ver: None, f: Function::Read, ..line.clone() };
                self.told(Operation { out: Outcome::Reset, ret: Some(now), ..told }, answer);
            }
        }
        match answer {
            // It follows nothing: neither what its session was to see, nor what other answers of this kind have shown.
            Some(answer) if answer.enforced == Some(false) => {
                self.record(
                    Operation { s: "nobody-writes".into(), level: Some(Level::Eventual), ..line },
                    Some(answer),
                );
            }
            _ => self.record(line, answer),
        }
        outcome == Outcome::Ok
    }

    /// Writes down a read.
    async fn shown(&self, mut line: Operation, answer: &Answer, value: Option<Value>) {
        line.ret = Some(self.shared.history.now());
        (line.node, line.epoch) = (answer.node.clone(), answer.epoch);
        line.val = value;
        match judge::read(answer) {
            Read::Reset => {
                let shown = line.val.take_if(|_| answer.enforced == Some(false));
                self.told(Operation { out: Outcome::Reset, ..line.clone() }, answer);
                if shown.is_some() {
                    self.nobodys(Operation { val: shown, ..line }, answer);
                }
            }
            Read::Failed => return self.pause().await,
            Read::Promised => self.record(line, Some(answer)),
            Read::Unpromised => self.nobodys(line, answer),
        }
    }

    /// What an answer has shown that promises nothing binds nobody.
    fn nobodys(&self, line: Operation, answer: &Answer) {
        self.record(Operation { s: "nobody".into(), level: Some(Level::Eventual), ..line }, Some(answer));
    }

    /// Writes down that a loss was told: one that has happened when that epoch began, and none that is yet to come.
    fn told(&self, line: Operation, answer: &Answer) {
        self.member.floors.lock().told();
        let line = Operation { epoch: answer.lost_since, ..line };
        self.record(line, Some(answer));
    }

    fn record(&self, line: Operation, answer: Option<&Answer>) {
        self.shared.history.write_with(line, || match answer {
            Some(Answer { status, enforced, route, .. }) => format!("{} {status} {route} {enforced:?}", self.asked),
            None => format!("{} no answer", self.asked),
        });
    }

    /// A service that fails is not hammered.
    async fn pause(&self) {
        sleep(PAUSE).await;
    }
}

/// What a router that knows nothing would have shown.
async fn shadow(shared: &Shared, target: &str, key: &str) {
    let inv = Some(shared.history.now());
    let Some((answer, body)) = ungated(shared, target, Method::GET, key, String::new()).await else { return };
    if let Ok(shown) = serde_json::from_slice(&body) {
        let line = Operation { s: "ungated".into(), k: Some(key.to_owned()), inv, ..Operation::new(Function::Read) };
        let (ret, val) = (Some(shared.history.now()), Some(Value::List(shown)));
        shared.history.write(Operation { ret, val, level: Some(Level::Eventual), node: answer.node, ..line });
    }
}

/// The surviving state, as the primary shows it to a reader at `STRONG`.
pub(super) async fn read_finals(shared: &Shared, groups: &[Arc<Group>]) -> u64 {
    let Some(target) = shared.settings.targets.first() else { return 0 };
    let mut unread = 0;
    for key in groups.iter().flat_map(|group| group.keys.all()) {
        let call = Call {
            method: Method::GET,
            uri: format!("{target}/list/{key}"),
            level: Some(Level::Strong.as_str().to_owned()),
            body: Bytes::new(),
            cancel: None,
        };
        let answer = Carrier::Nothing.call(&shared.http, call).await;
        if let Some((answer, body)) = answer.filter(|(answer, _)| answer.succeeded())
            && let Ok(list) = serde_json::from_slice(&body)
        {
            let line = Operation {
                k: Some(key),
                val: Some(Value::List(list)),
                node: answer.node,
                ..Operation::new(Function::Final)
            };
            shared.history.write(line);
        } else {
            unread += 1;
        }
    }
    unread
}

/// A session without the layer that believes it were protected.
pub(super) async fn control(shared: Arc<Shared>, number: u64, mut rng: fastrand::Rng) {
    let keys = Keys::new("control", 4);
    while !*shared.stopped.borrow() {
        let key = format!("{}-{number}", keys.for_value(&mut rng));
        let value = shared.values.fetch_add(1, Relaxed) + 1;
        let target = shared.settings.targets[rng.usize(..shared.settings.targets.len())].clone();
        let line = |f| Operation {
            s: format!("control{number}"),
            k: Some(key.clone()),
            inv: Some(shared.control.now()),
            level: Some(Level::Ryw),
            ..Operation::new(f)
        };
        let write = Operation { v: Some(value), ..line(Function::Append) };
        let written = ungated(&shared, &target, Method::POST, &key, value.to_string()).await;
        let out = if written.is_some() { Outcome::Ok } else { Outcome::Info };
        let ret = written.is_some().then(|| shared.control.now());
        shared.control.write(Operation { out, ret, ..write });
        let read = line(Function::Read);
        if let Some((answer, body)) = ungated(&shared, &target, Method::GET, &key, String::new()).await
            && let Ok(shown) = serde_json::from_slice(&body)
        {
            let (ret, val) = (Some(shared.control.now()), Some(Value::List(shown)));
            shared.control.write(Operation { ret, val, node: answer.node, ..read });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn ungated(shared: &Shared, target: &str, method: Method, key: &str, body: String) -> Option<(Answer, Bytes)> {
    let path = shared.settings.ungated.as_deref()?;
    let uri = format!("{target}{path}/list/{key}");
    let call = Call { method, uri, level: None, body: body.into(), cancel: None };
    Carrier::Nothing.call(&shared.http, call).await.filter(|(answer, _)| answer.succeeded())
}
