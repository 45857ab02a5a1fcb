//! Reads that are asked at the same time are one question to the server: it spends more on a command than on a key.

use std::{mem, sync::Arc};

use bb8::Pool;
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use redis::{Pipeline, Value};
use ryw_core::SubjectKey;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    buckets::{Buckets, Read, Witness},
    error::{Failure, code},
    found::{Found, find},
    keys::{KeySpace, bucket_number},
    layout::Bucket,
    server::{Connection, Manager, connection},
};

/// Questions that wait to be asked; whoever comes then waits until there is room.
const WAITING: usize = 1024;
/// Questions of one batch at most.
const BATCH: usize = 128;
/// Batches under way: some are on the server while others are read or written here.
const AT_ONCE: usize = 4;

/// Asks one server. Its task ends with the last of it.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    questions: mpsc::Sender<Question>,
    asker: Arc<Asker>,
}

/// Who has answered, and what is there of each subject.
pub(crate) type Answer = (Connection, Vec<Seen>);

/// The bytes of a subject's entry, if any, and its bucket.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) entry: Vec<u8>,
    pub(crate) bucket: Option<Arc<Bucket>>,
}

#[derive(Debug)]
struct Question {
    keys: Arc<[SubjectKey]>,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

#[derive(Debug)]
struct Asker {
    pool: Pool<Manager>,
    names: Arc<KeySpace>,
    buckets: Mutex<Buckets>,
}

impl Reads {
    pub(crate) fn new(pool: Pool<Manager>, names: Arc<KeySpace>) -> Self {
        let (questions, asked) = mpsc::channel(WAITING);
        let asker = Arc::new(Asker { pool, names, buckets: Mutex::default() });
        drop(tokio::spawn(ask_all(asked, Arc::clone(&asker))));
        Self { questions, asker }
    }

    /// What the server has, at some time after this was called.
    pub(crate) async fn ask(&self, keys: Arc<[SubjectKey]>) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { keys, answer }).await.map_err(|_| Failure::Ended)?;
        answered.await.unwrap_or(Err(Failure::Ended))
    }

    /// The subject's bucket was changed from here.
    pub(crate) fn changed(&self, key: &SubjectKey) {
        self.asker.buckets.lock().forget(bucket_number(key));
    }
}

async fn ask_all(mut asked: mpsc::Receiver<Question>, asker: Arc<Asker>) {
    let mut under_way = FuturesUnordered::new();
    let mut batch = Vec::new();
    loop {
        select! {
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            count = asked.recv_many(&mut batch, BATCH), if under_way.len() < AT_ONCE => {
                if count == 0 {
                    return;
                }
                under_way.push(asker.answer(mem::take(&mut batch)));
            }
        }
    }
}

impl Question {
    /// Whoever has asked may have left.
    fn end(self, answer: Result<Answer, Failure>) {
        drop(self.answer.send(answer));
    }
}

impl Asker {
    async fn answer(&self, mut batch: Vec<Question>) {
        batch.retain(|question| !question.answer.is_closed());
        let failed =
            |batch: Vec<Question>, failure: Failure| batch.into_iter().for_each(|one| one.end(Err(failure.clone())));
        let connection = match connection(&self.pool).await {
            Ok(connection) => connection,
            Err(failure) => return failed(batch, failure),
        };
        let together = match &batch[..] {
            [_] => Ok(None),
            _ => self.together(&connection, &batch).await,
        };
        match together {
            Ok(Some(answers)) => {
                for (question, seen) in batch.into_iter().zip(answers) {
                    question.end(Ok((connection.clone(), seen)));
                }
            }
            Ok(None) => {
                let alone = |question| self.alone(&connection, question);
                let mut alone: FuturesUnordered<_> = batch.into_iter().map(alone).collect();
                while alone.next().await.is_some() {}
            }
            Err(failure) => failed(batch, failure),
        }
    }

    async fn alone(&self, connection: &Connection, question: Question) {
        let found = find(connection, &self.names, &question.keys).await;
        let seen = |found: Vec<Found>| found.into_iter().map(Seen::from).collect();
        question.end(found.map(|found| (connection.clone(), seen(found))));
    }

    /// Asks for all at once. `None`: they have to be asked one by one, so that what is wrong with one of them is no matter of
    /// the others.
    async fn together(&self, connection: &Connection, batch: &[Question]) -> Result<Option<Vec<Vec<Seen>>>, Failure> {
        if connection.is_in_cluster() {
            return self.by_slot(connection, batch).await;
        }
        let asked = Instant::now();
        let mut known = self.known(connection, batch, asked);
        let keys = || batch.iter().flat_map(|question| question.keys.iter());
        let mut wanted = Vec::new();
        let mut is_wanted = [false; 64];
        let (mut get, mut exist) = (redis::cmd("MGET"), redis::cmd("EXISTS"));
        let mut count = 0;
        for key in keys() {
            let name = self.names.entry(key);
            get.arg(&name[..]);
            exist.arg(&name[..]);
            count += 1;
            let number = bucket_number(key);
            if known[number].is_none() && !mem::replace(&mut is_wanted[number], true) {
                wanted.push(key);
            }
        }
        for key in &wanted {
            let name = self.names.bucket(key);
            get.arg(&name[..]);
            exist.arg(&name[..]);
        }
        if count == 0 {
            return Ok(None);
        }
        let mut reads = Pipeline::with_capacity(3);
        // GETEX counts as a write, so all of it is refused where MGET would answer from a replica's old copy.
        reads.atomic().cmd("GETEX").arg(&self.names.witness()[..]).add_command(get).add_command(exist);
        let (witness, values, there): (Option<Vec<u8>>, Vec<Value>, usize) = match connection.query(&reads).await {
            Err(Failure::Redis(error)) if code(&error).as_deref() == Some("WRONGTYPE") => return Ok(None),
            answer => answer?,
        };
        let Some(witness) = witness.and_then(|bytes| Witness::try_from(bytes).ok()) else {
            self.buckets.lock().clear();
            self.bear_witness(connection).await?;
            return Ok(None);
        };
        // MGET takes what is no string for nothing.
        if values.len() != count + wanted.len() || there != values.iter().filter(|value| **value != Value::Nil).count()
        {
            return Ok(None);
        }
        let now = Instant::now();
        if known.iter().flatten().any(|known| known.witness != witness || !known.is_usable(now)) {
            self.buckets.lock().clear();
            return Ok(None);
        }
        let mut values =
            values.into_iter().map(|value| if let Value::BulkString(bytes) = value { bytes } else { Vec::new() });
        let entries: Vec<_> = values.by_ref().take(count).collect();
        for (key, bytes) in wanted.into_iter().zip(values) {
            let Ok(bucket) = Bucket::decode(&bytes) else { return Ok(None) };
            let read = Read { bucket: Arc::new(bucket), asked, witness };
            self.buckets.lock().put(bucket_number(key), read.clone());
            known[bucket_number(key)] = Some(read);
        }
        let mut entries = entries.into_iter();
        let mut seen = |key: &SubjectKey| Seen {
            entry: entries.next().unwrap_or_default(),
            bucket: known[bucket_number(key)].as_ref().map(|known| Arc::clone(&known.bucket)),
        };
        Ok(Some(batch.iter().map(|question| question.keys.iter().map(&mut seen).collect()).collect()))
    }

    /// Leaves a number on a server that has none.
    async fn bear_witness(&self, connection: &Connection) -> Result<(), Failure> {
        let number = fastrand::u128(..).to_be_bytes();
        let mut set = Pipeline::with_capacity(1);
        set.cmd("SET").arg(&self.names.witness()[..]).arg(&number[..]).arg("NX").ignore();
        connection.query(&set).await
    }

    /// A command takes keys of one slot only; it is one round trip all the same.
    async fn by_slot(&self, connection: &Connection, batch: &[Question]) -> Result<Option<Vec<Vec<Seen>>>, Failure> {
        let keys: Vec<_> = batch.iter().flat_map(|question| question.keys.iter().copied()).collect();
        let found = match find(connection, &self.names, &keys).await {
            // Some may have moved.
            Err(Failure::Redis(error)) if code(&error).is_some() => return Ok(None),
            Err(Failure::Malformed) => return Ok(None),
            answer => answer?,
        };
        let mut found = found.into_iter().map(Seen::from);
        Ok(Some(batch.iter().map(|question| found.by_ref().take(question.keys.len()).collect()).collect()))
    }

    fn known(&self, connection: &Connection, batch: &[Question], now: Instant) -> [Option<Read>; 64] {
        let mut known = [const { None }; 64];
        let buckets = self.buckets.lock();
        for number in batch.iter().flat_map(|question| question.keys.iter()).map(bucket_number) {
            if known[number].is_none() {
                known[number] = buckets.get(number, connection.incarnation(), now);
            }
        }
        known
    }
}

impl From<Found> for Seen {
    fn from(found: Found) -> Self {
        Self { entry: found.entry_bytes, bucket: found.bucket.map(Arc::new) }
    }
}
