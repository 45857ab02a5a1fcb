//! What changes marks. Joins are made on the server; all else is computed here, and exchanged when nothing has happened since.

use futures_util::future::try_join_all;
use redis::Pipeline;
use ryw_core::{Marks, Position, StoreError, SubjectKey, Unsettled, Update};

use crate::{
    error::{Failure, TooFewReplicas},
    found::{Found, find},
    layout::{Bucket, Entry},
    node::Replicas,
    route::Servers,
    server::Connection,
    store::Inner,
};

/// How often an entry that somebody else changes at the same time is read again.
const TRIES: usize = 8;

impl Inner {
    pub(crate) async fn join(&self, keys: &[SubjectKey], update: &Update) -> Result<(), StoreError> {
        match self.servers {
            Servers::One(_) => self.join_on_one_server(keys, update).await,
            Servers::Cluster(_) => {
                let each = keys.chunks(1).map(|key| self.join_on_one_server(key, update));
                try_join_all(each).await.map(drop)
            }
        }
    }

    async fn join_on_one_server(&self, keys: &[SubjectKey], update: &Update) -> Result<(), StoreError> {
        let Some(first) = keys.first() else { return Ok(()) };
        let mut route = self.route(first);
        loop {
            let tried = async {
                let writer = route.writer().await?;
                self.join_over(&writer.connection, keys, update).await
            };
            match tried.await {
                Ok(()) => return Ok(()),
                // Joins that are made twice make no difference.
                Err(failure) => route.next(failure).await?,
            }
        }
    }

    async fn join_over(&self, connection: &Connection, keys: &[SubjectKey], update: &Update) -> Result<(), Failure> {
        let marks = update.marks.to_bytes();
        let number = |millis: u128| millis.to_string().into_bytes();
        let hold = number(update.hold.unwrap_or_default().as_millis());
        let (ttl, period) = (number(self.ttl.as_millis()), number(self.period_length().into()));
        let evicts = [u8::from(connection.evicts())];
        let mut calls = Pipeline::with_capacity(keys.len() + 1);
        for key in keys {
            let arguments: [&[u8]; 7] =
                [&connection.incarnation().0, &fastrand::u32(..).to_be_bytes(), &hold, &ttl, &period, &marks, &evicts];
            let names = [&self.keys.entry(key)[..], &self.keys.bucket(key)[..]];
            self.scripts.join.call(&mut calls, names, &arguments);
        }
        let Some(Replicas { count: wanted, timeout }) = self.replicas else {
            self.scripts.join.run::<Vec<u32>>(connection, &calls).await?;
            return connection.is_everybodys();
        };
        // Rounded up: 0 would be for ever.
        let millis = number(timeout.as_millis().max(1));
        calls.cmd("WAIT").arg(wanted).arg(millis);
        let answers = self.scripts.join.run::<Vec<u32>>(connection, &calls).await?;
        let acknowledged = answers.last().copied().unwrap_or_default();
        if acknowledged < wanted {
            return Err(Failure::Replicas(TooFewReplicas { wanted, acknowledged }));
        }
        connection.is_everybodys()
    }

    pub(crate) async fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> Result<(), StoreError> {
        for unsettled in unsettled {
            let mut route = self.route(&unsettled.key);
            loop {
                let tried = async { self.settle_over(&route.connection().await?, unsettled, at).await };
                match tried.await {
                    Ok(()) => break,
                    Err(failure) => route.next(failure).await?,
                }
            }
        }
        Ok(())
    }

    async fn settle_over(
        &self,
        connection: &Connection,
        Unsettled { key, stamp }: &Unsettled,
        at: Option<Position>,
    ) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let found = self.read_one(connection, key).await?;
            let now = connection.now();
            let entry = found.entry.clone().filter(|entry| entry.stamp() == *stamp && entry.held_until <= now);
            let entry = entry.map(|entry| {
                let marks = entry.marks.clone().without_unknown();
                Entry { marks: at.map_or(marks.clone(), |at| marks.settled_by(at)), ..entry }
            });
            let of_floor = stamp.0 % 2 == 1;
            let bucket =
                found.bucket.clone().filter(|bucket| of_floor && bucket.incarnation == connection.incarnation());
            let bucket = bucket.map(|bucket| bucket.in_period(self.period(connection)).settled(*stamp, at));
            if entry.is_none() && bucket.is_none()
                || self.exchange(connection, key, &found, entry.as_ref(), bucket.as_ref()).await?
            {
                break;
            }
        }
        Ok(())
    }

    pub(crate) async fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> Result<(), StoreError> {
        for key in keys {
            let mut route = self.route(key);
            loop {
                let tried = async { self.acknowledge_over(&route.connection().await?, key, told).await };
                match tried.await {
                    Ok(()) => break,
                    Err(failure) => route.next(failure).await?,
                }
            }
        }
        Ok(())
    }

    async fn acknowledge_over(&self, connection: &Connection, key: &SubjectKey, told: &Marks) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let found = self.read_one(connection, key).await?;
            let Some(entry) = found.entry.clone() else { break };
            let entry = Entry { marks: entry.marks.clone().without(told), ..entry };
            if self.exchange(connection, key, &found, Some(&entry), None).await? {
                break;
            }
        }
        Ok(())
    }

    /// The server may have lost anything: whoever has no mark of the new generation is held to its floor.
    pub(crate) async fn renewed(
        &self,
        connection: &Connection,
        key: &SubjectKey,
    ) -> Result<(Option<Entry>, Bucket), Failure> {
        for _ in 0..TRIES {
            let found = self.read_one(connection, key).await?;
            let incarnation = connection.incarnation();
            let generation = match &found.bucket {
                Some(bucket) if bucket.incarnation == incarnation => {
                    return Ok((found.entry, bucket.clone()));
                }
                Some(bucket) => bucket.generation.wrapping_add(1),
                None => fastrand::u32(..),
            };
            let bucket = Bucket::new(incarnation, generation, self.period(connection));
            tracing::debug!(bucket = key.as_bytes()[0], "Redis may have lost marks: those it has not are unknown");
            if self.exchange(connection, key, &found, None, Some(&bucket)).await? {
                return Ok((found.entry, bucket));
            }
        }
        Err(Failure::Busy)
    }

    pub(crate) async fn read_one(&self, connection: &Connection, key: &SubjectKey) -> Result<Found, Failure> {
        find(connection, &self.keys, &[*key]).await?.pop().ok_or(Failure::Malformed)
    }

    /// Replaces what was found, when it is still that. `None` leaves it.
    async fn exchange(
        &self,
        connection: &Connection,
        key: &SubjectKey,
        found: &Found,
        entry: Option<&Entry>,
        bucket: Option<&Bucket>,
    ) -> Result<bool, Failure> {
        let new_entry = entry.map_or_else(|| found.entry_bytes.clone(), Entry::encode);
        let new_bucket = bucket.map_or_else(|| found.bucket_bytes.clone(), Bucket::encode);
        let arguments: [&[u8]; 4] = [&found.entry_bytes, &new_entry, &found.bucket_bytes, &new_bucket];
        let mut calls = Pipeline::with_capacity(1);
        let names = [&self.keys.entry(key)[..], &self.keys.bucket(key)[..]];
        self.scripts.exchange.call(&mut calls, names, &arguments);
        let answer = self.scripts.exchange.run::<[u8; 1]>(connection, &calls).await;
        self.servers.changed(key);
        Ok(answer? == [1])
    }
}
