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
use ryw_core::{Key, Keyring, MarkStore, Tenant};
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};
use tower_ryw::{LocalStore, RywContext, RywLayer, RywLayerBuilder};

use crate::{
    cluster::{Client, at},
    harness::session,
    slow_store::{How, Remote},
};

const DIRECTORY: &str = "RYW_TEST_OUTBOX";
const FIRST: &str = "RYW_TEST_FIRST";
const SESSIONS: u64 = 40;
const SEED: u64 = 20_260_401;

fn keys() -> Keyring {
    Keyring::new(Key::new(1, b"a secret that both processes know").unwrap())
}

/// Small enough for the file to be replaced every few dozen writes.
fn layer(directory: impl AsRef<Path>, how: How, store: &LocalStore) -> RywLayerBuilder {
    let store = Remote { how, local: store.clone() };
    let builder = RywLayer::builder().store(store).signing_keys(keys()).store_deadline(Duration::from_secs(5));
    builder.outbox(directory.as_ref()).outbox_capacity(8192)
}

/// Writes for as long as it lives, and says what it was promised.
#[test]
fn writes_until_it_is_killed() {
    let (Ok(directory), Ok(first)) = (env::var(DIRECTORY), env::var(FIRST)) else { return };
    let next = Arc::new(AtomicU64::new(first.parse().unwrap()));
    Runtime::new().unwrap().block_on(async {
        let layer = layer(directory, How::Fails, &LocalStore::new()).build().unwrap();
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
                        let line = format!("{number} {}\n", answer.body);
                        let mut out = std::io::stdout().lock();
                        out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
                    }
                }
            });
        }
        // They go on until they are killed.
        writers.join_next().await;
    });
}

fn start(directory: &Path, first: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What was promised to whom: the last of it, as one position contains the earlier ones.
fn promise(promises: &mut HashMap<u64, u64>, line: &str) -> bool {
    // What the test harness says is no promise, nor is a line that was not finished.
    let Some((who, number)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) else { return false };
    let (Ok(who), Ok(number)) = (who.parse(), number.parse::<u64>()) else { return false };
    let last = promises.entry(who).or_default();
    *last = number.max(*last);
    true
}

/// Kills it after so many promises, and a moment.
fn run_and_kill(directory: &Path, first: u64, after: usize, moment: u32, promises: &mut HashMap<u64, u64>) -> usize {
    let mut child = start(directory, first);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut count, mut line) = (0, String::new());
    while count < after && out.read_line(&mut line).unwrap() > 0 {
        count += usize::from(promise(promises, &line));
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
    count + rest.split_inclusive('\n').filter(|line| promise(promises, line)).count()
}

async fn deliver(directory: &Path) -> LocalStore {
    let store = LocalStore::new();
    let layer = layer(directory, How::Slow, &store).build().unwrap();
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
    let (mut first, mut all) = (1, 0);
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let mut promises = HashMap::new();
        // What two processes could not deliver the third one has to keep as well.
        for round in 0..3 {
            let (after, moment) = (random.usize(1..150), random.u32(0..300_000));
            all += run_and_kill(directory.path(), first, after, moment, &mut promises);
            first += 1_000_000;
            assert!(!promises.is_empty(), "{round}");
        }
        let store = runtime.block_on(deliver(directory.path()));
        for (who, number) in promises {
            let key = keys().newest().session(&Tenant::default(), &format!("s{who}").parse().unwrap());
            let marks = store.load(&[key]).now().unwrap().unwrap().marks;
            let known = marks.positions().first().map(|position| position.offset());
            assert!(
                known >= Some(number),
                "session {who}: {number} was promised, the store has {known:?}, seed {SEED}"
            );
        }
    }
    println!("{all} promises");
    assert!(all > 500, "too few to mean something: {all}");
}
