//! A process that is killed, at any moment: what it has promised is delivered by the next one.
//!
//! The process is this test binary, run once more with a variable set.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::routing::post;
use ryw_core::{
    Key, Keyring, Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Tenant,
    Unsettled, Update,
};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_ryw::{LocalStore, RywContext, RywLayer, RywLayerBuilder};

use crate::{
    cluster::{Client, at},
    harness::session,
    slow_store::{How, Remote},
};

const DIRECTORY: &str = "RYW_TEST_OUTBOX";
const FIRST: &str = "RYW_TEST_FIRST";
const FLAKY: &str = "RYW_TEST_FLAKY";
const SESSIONS: u64 = 40;
const SEED: u64 = 20_260_401;

fn keys() -> Keyring {
    Keyring::new(Key::new(1, b"a secret that both processes know").unwrap())
}

/// Small enough for the file to be replaced every few dozen writes.
fn layer(directory: impl AsRef<Path>, store: impl MarkStore) -> RywLayerBuilder {
    let builder = RywLayer::builder().store(store).signing_keys(keys()).store_deadline(Duration::from_secs(5));
    builder.outbox(directory.as_ref()).outbox_capacity(8192)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

fn hex(key: &SubjectKey) -> String {
    key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A store that outlives the process, because what it takes is said aloud; every now and then it fails.
#[derive(Debug)]
struct Flaky;

impl Flaky {
    fn answer<T: Default + Send + 'static>(what: impl FnOnce() + Send + 'static) -> StoreFuture<T> {
        StoreFuture::boxed(async move {
            tokio::task::yield_now().await;
            if fastrand::u8(..) < 20 {
                return Err(StoreError::new(StoreErrorKind::Unavailable));
            }
            what();
            Ok(T::default())
        })
    }
}

impl MarkStore for Flaky {
    fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
        Self::answer(|| ())
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        let offset = update.marks.positions().iter().map(|position| position.offset()).max();
        let lines = keys.iter().map(|key| format!("{} {}\n", hex(key), offset.unwrap_or_default()));
        let lines: Vec<_> = lines.collect();
        Self::answer(move || lines.iter().for_each(|line| say(line)))
    }

    fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
        Self::answer(|| ())
    }

    fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
        Self::answer(|| ())
    }
}

/// Writes for as long as it lives, and says what it was promised.
#[test]
fn writes_until_it_is_killed() {
    let (Ok(directory), Ok(first)) = (env::var(DIRECTORY), env::var(FIRST)) else { return };
    // The test harness has begun a line, which would swallow the first one.
    say("\n");
    let next = Arc::new(AtomicU64::new(first.parse().unwrap()));
    Runtime::new().unwrap().block_on(async {
        let dead = Remote { how: How::Fails, local: LocalStore::new() };
        let layer = if env::var(FLAKY).is_ok() { layer(directory, Flaky) } else { layer(directory, dead) };
        let layer = layer.build().unwrap();
        let handler = {
            let next = Arc::clone(&next);
            post(|context: RywContext| async move {
                let number = next.fetch_add(1, SeqCst);
                context.mark_written_at(at(1, number));
                number.to_string()
            })
        };
        let client = Arc::new(Client::with(&layer, handler));
        let mut writers = JoinSet::new();
        for number in 0..SESSIONS {
            let client = Arc::clone(&client);
            writers.spawn(async move {
                let name = format!("s{number}");
                loop {
                    let answer = client.send("POST", "/it", &[session(&name)]).await;
                    if answer.header("x-consistency-enforced") == Some("true") {
                        say(&format!("{number} {}\n", answer.body));
                    }
                }
            });
        }
        // They go on until they are killed, which does not happen where nothing is promised.
        let _ = timeout(Duration::from_secs(60), writers.join_next()).await;
    });
}

fn start(directory: &Path, first: u64, is_flaky: bool) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "killed::writes_until_it_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, directory).env(FIRST, first.to_string());
    if is_flaky {
        command.env(FLAKY, "");
    }
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// The last of what was promised to whom, and of what the flaky store has taken: a position contains the earlier ones.
#[derive(Default)]
struct Heard {
    promised: HashMap<u64, u64>,
    taken: HashMap<String, u64>,
}

impl Heard {
    /// Whether it is a promise.
    fn hear(&mut self, line: &str) -> bool {
        // Nor is what the test harness says one, or a line that was not finished.
        let Some((who, number)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) else { return false };
        let Ok(number) = number.parse::<u64>() else { return false };
        let (last, is_promise) = match who.parse() {
            Ok(who) if who < SESSIONS => (self.promised.entry(who).or_default(), true),
            _ => (self.taken.entry(who.to_owned()).or_default(), false),
        };
        *last = number.max(*last);
        is_promise
    }

    /// Kills the process after so many promises, and a moment.
    fn run_and_kill(&mut self, mut child: Child, after: usize, moment: u32) -> usize {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (mut count, mut line) = (0, String::new());
        while count < after && out.read_line(&mut line).unwrap() > 0 {
            count += usize::from(self.hear(&line));
            line.clear();
        }
        for _ in 0..moment {
            std::hint::spin_loop();
        }
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        count + rest.split_inclusive('\n').filter(|line| self.hear(line)).count()
    }
}

async fn deliver(directory: &Path) -> LocalStore {
    let store = LocalStore::new();
    let layer = layer(directory, Remote { how: How::Slow, local: store.clone() }).build().unwrap();
    while layer.store_health().unwrap().away.is_some() {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(layer.store_health().unwrap().backlog, 0);
    store
}

#[test]
fn what_was_promised_survives() {
    let mut random = fastrand::Rng::with_seed(SEED);
    let runtime = Runtime::new().unwrap();
    let (mut first, mut all, mut by_the_last) = (1, 0, 0);
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let mut heard = Heard::default();
        // What two processes could not deliver the third one has to keep as well, or to deliver, as far as it gets.
        for is_flaky in [false, random.bool(), random.bool()] {
            let (after, moment) = (random.usize(1..150), random.u32(0..300_000));
            all += heard.run_and_kill(start(directory.path(), first, is_flaky), after, moment);
            first += 1_000_000;
        }
        let store = runtime.block_on(deliver(directory.path()));
        for (who, number) in heard.promised {
            let key = keys().newest().session(&Tenant::default(), &format!("s{who}").parse().unwrap());
            let marks = store.load(&[key]).now().unwrap().unwrap().marks;
            let delivered = marks.positions().first().map(|position| position.offset());
            let taken = heard.taken.get(&hex(&key)).copied();
            by_the_last += usize::from(delivered > taken);
            let known = delivered.max(taken);
            assert!(
                known >= Some(number),
                "session {who}: {number} was promised, the store has {known:?}, seed {SEED}"
            );
        }
    }
    println!("{all} promises, {by_the_last} kept by the last process");
    assert!(all > 500 && by_the_last > 50, "too few to mean something: {all}, {by_the_last}");
}
