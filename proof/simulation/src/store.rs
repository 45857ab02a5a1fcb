//! A mark store behind a network: the product's own store on another host, and a client of it.
//!
//! A frame is its length, in four bytes, and JSON. The server may forget everything; what was asked before that settles
//! nothing after it, because stamps carry the number of the server's run.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_core::{
    ClusterId, Epoch, Loaded, Lost, Mark, MarkStore, Marks, Position, Stamp, StoreError, StoreErrorKind, StoreFuture,
    SubjectKey, Unsettled, Update,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};
use tower_ryw::LocalStore;
use turmoil::net::{TcpListener, TcpStream};

use crate::world::World;

pub(crate) const HOST: &str = "store";
const PORT: u16 = 6379;
/// Where the number of the server's run is in a stamp.
const RUN_SHIFT: u32 = 40;

type Place = (u64, u32, u64);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    positions: Vec<Place>,
    pending: bool,
    unknown: bool,
    lost: Option<(u32, u32)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Load(Vec<[u8; 16]>),
    Join(Vec<[u8; 16]>, Said, Option<u64>),
    Settle(Vec<([u8; 16], u64)>, Option<Place>),
    Acknowledge(Vec<[u8; 16]>, Said),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    marks: Said,
    floor: Said,
    unsettled: Vec<([u8; 16], u64)>,
    floored: Vec<([u8; 16], u64)>,
    has_entry: bool,
}

impl From<&Marks> for Said {
    fn from(marks: &Marks) -> Self {
        let place = |at: &Position| (at.cluster().get(), at.epoch().get(), at.offset());
        Self {
            positions: marks.positions().iter().map(place).collect(),
            pending: marks.is_pending(),
            unknown: marks.is_unknown(),
            lost: marks.lost().map(|lost| (lost.epoch.get(), lost.was.get())),
        }
    }
}

impl From<Said> for Marks {
    fn from(said: Said) -> Self {
        let mut marks: Self = said.positions.into_iter().map(|place| Mark::At(position(place))).collect();
        let flags = [(said.pending, Mark::Pending), (said.unknown, Mark::Unknown)];
        flags.into_iter().filter(|(is_set, _)| *is_set).for_each(|(_, mark)| marks.add(mark));
        if let Some((epoch, was)) = said.lost {
            marks.add(Mark::Lost(Lost { epoch: Epoch::new(epoch), was: Epoch::new(was) }));
        }
        marks
    }
}

const fn position((cluster, epoch, offset): Place) -> Position {
    Position::new(ClusterId::new(cluster), Epoch::new(epoch), offset)
}

fn bytes(keys: &[SubjectKey]) -> Vec<[u8; 16]> {
    keys.iter().map(|key| *key.as_bytes()).collect()
}

fn keys(bytes: Vec<[u8; 16]>) -> Vec<SubjectKey> {
    bytes.into_iter().map(SubjectKey::from_bytes).collect()
}

/// What the server keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeps {
    pub(crate) capacity: usize,
    pub(crate) ttl: Duration,
}

/// The server.
pub(crate) async fn serve(world: World, keeps: Keeps) -> turmoil::Result {
    let started = || {
        let run = world.with(|inner| {
            inner.store_runs += 1;
            inner.store_runs
        });
        Arc::new(Mutex::new((LocalStore::builder().capacity(keeps.capacity).ttl(keeps.ttl).build(), run)))
    };
    let state = started();
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let (world, state) = (world.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok(frame) = receive(&mut stream).await {
                if world.with(|inner| std::mem::take(&mut inner.wipe_store)) {
                    let run = world.with(|inner| {
                        inner.store_runs += 1;
                        inner.store_runs
                    });
                    *state.lock() = (LocalStore::builder().capacity(keeps.capacity).ttl(keeps.ttl).build(), run);
                }
                let takes = world.with(|inner| inner.store_takes);
                if !takes.is_zero() {
                    sleep(takes).await;
                }
                let (store, run) = state.lock().clone();
                let Some(reply) = answer(&store, run, &frame) else { return };
                if send(&mut stream, &reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn answer(store: &LocalStore, run: u64, frame: &[u8]) -> Option<Vec<u8>> {
    let tagged = |one: &Unsettled| (*one.key.as_bytes(), one.stamp.0 | run << RUN_SHIFT);
    let known = match serde_json::from_slice(frame).ok()? {
        Question::Load(of) => {
            let loaded = store.load(&keys(of)).now().ok()?.ok()?;
            Known {
                marks: (&loaded.marks).into(),
                floor: (&loaded.floor).into(),
                unsettled: loaded.unsettled.iter().map(tagged).collect(),
                floored: loaded.floored.iter().map(tagged).collect(),
                has_entry: loaded.has_entry,
            }
        }
        Question::Join(of, marks, hold) => {
            let update = Update { marks: marks.into(), hold: hold.map(Duration::from_millis) };
            store.join(&keys(of), &update).now().ok()?.ok()?;
            Known::default()
        }
        Question::Settle(unsettled, at) => {
            let own = unsettled.into_iter().filter(|(_, stamp)| stamp >> RUN_SHIFT == run);
            let untagged = |(key, stamp): ([u8; 16], u64)| Unsettled {
                key: SubjectKey::from_bytes(key),
                stamp: Stamp(stamp & ((1 << RUN_SHIFT) - 1)),
            };
            store.settle(&own.map(untagged).collect::<Vec<_>>(), at.map(position)).now().ok()?.ok()?;
            Known::default()
        }
        Question::Acknowledge(of, told) => {
            store.acknowledge(&keys(of), &told.into()).now().ok()?.ok()?;
            Known::default()
        }
    };
    serde_json::to_vec(&known).ok()
}

async fn send(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(frame);
    stream.write_all(&message).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// The client.
#[derive(Clone, Debug)]
pub(crate) struct RemoteStore {
    world: World,
    /// How often the network delivers a join twice, in percent.
    twice: u8,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

impl RemoteStore {
    pub(crate) fn new(world: &World, twice: u8) -> Self {
        Self { world: world.clone(), twice, idle: Arc::default() }
    }

    /// A connection whose answer was not waited for is not used again.
    async fn ask(self, question: Question) -> Result<Known, StoreError> {
        let failed = |error: io::Error| StoreError::new(StoreErrorKind::Unavailable).with_source(error);
        let frame = serde_json::to_vec(&question).map_err(io::Error::other).map_err(failed)?;
        let idle = self.idle.lock().pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect((HOST, PORT)).await.map_err(failed)?,
        };
        send(&mut stream, &frame).await.map_err(failed)?;
        let reply = receive(&mut stream).await.map_err(failed)?;
        let known = serde_json::from_slice(&reply).map_err(|_| StoreError::new(StoreErrorKind::Corrupt))?;
        self.idle.lock().push(stream);
        Ok(known)
    }

    fn told(&self, question: Question) -> StoreFuture<()> {
        let store = self.clone();
        StoreFuture::boxed(async move { store.ask(question).await.map(drop) })
    }
}

impl MarkStore for RemoteStore {
    fn load(&self, of: &[SubjectKey]) -> StoreFuture<Loaded> {
        let (store, question) = (self.clone(), Question::Load(bytes(of)));
        let untagged = |(key, stamp)| Unsettled { key: SubjectKey::from_bytes(key), stamp: Stamp(stamp) };
        StoreFuture::boxed(async move {
            let known = store.ask(question).await?;
            Ok(Loaded {
                marks: known.marks.into(),
                floor: known.floor.into(),
                unsettled: known.unsettled.into_iter().map(untagged).collect(),
                floored: known.floored.into_iter().map(untagged).collect(),
                has_entry: known.has_entry,
                incomplete: false,
            })
        })
    }

    fn join(&self, of: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        let hold = update.hold.map(|hold| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX));
        let question = || Question::Join(bytes(of), (&update.marks).into(), hold);
        // A network may deliver it twice, the second time late.
        if self.world.chance(self.twice) {
            let (again, late) = (self.clone(), self.world.millis(5..=150));
            let question = question();
            tokio::spawn(async move {
                sleep(late).await;
                let _ = again.ask(question).await;
            });
            self.world.with(|inner| inner.count("duplicate"));
        }
        self.told(question())
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        let of = unsettled.iter().map(|one| (*one.key.as_bytes(), one.stamp.0)).collect();
        let at = at.map(|at| (at.cluster().get(), at.epoch().get(), at.offset()));
        self.told(Question::Settle(of, at))
    }

    fn acknowledge(&self, of: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        self.told(Question::Acknowledge(bytes(of), told.into()))
    }
}
