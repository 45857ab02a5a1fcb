//! What the server has of one subject, read by itself.

use redis::Pipeline;
use ryw_core::SubjectKey;

use crate::{
    error::Failure,
    keys::KeySpace,
    layout::{Bucket, Entry},
    server::Connection,
};

/// An entry and its bucket. The bytes are empty where there is none.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry_bytes: Vec<u8>,
    pub(crate) bucket_bytes: Vec<u8>,
    pub(crate) entry: Option<Entry>,
    pub(crate) bucket: Option<Bucket>,
}

/// Asks for each key by itself. In a cluster, all of them are on this server.
pub(crate) async fn find(
    connection: &Connection,
    names: &KeySpace,
    keys: &[SubjectKey],
) -> Result<Vec<Found>, Failure> {
    let mut reads = Pipeline::with_capacity(2 * keys.len());
    if connection.is_in_cluster() {
        for key in keys {
            let both = [names.entry(key), names.bucket(key)];
            let both = [&both[0][..], &both[1][..]];
            // In one command, so that it is refused while they are on their way to another server and one of them is there.
            reads.cmd("MGET").arg(&both[..]).cmd("EXISTS").arg(&both[..]);
        }
        let values: Vec<([Option<Vec<u8>>; 2], usize)> = connection.query(&reads).await?;
        return values.into_iter().map(|(both, there)| both_of(both, there)).collect();
    }
    for key in keys {
        // GETEX counts as a write, so it is refused where GET would answer from a replica's old copy.
        reads.cmd("GETEX").arg(&names.entry(key)[..]).cmd("GET").arg(&names.bucket(key)[..]);
    }
    let values: Vec<Option<Vec<u8>>> = connection.query(&reads).await?;
    let mut values = values.into_iter().map(Option::unwrap_or_default);
    let mut found = Vec::with_capacity(keys.len());
    while let (Some(entry), Some(bucket)) = (values.next(), values.next()) {
        found.push(Found::new(entry, bucket)?);
    }
    if found.len() == keys.len() { Ok(found) } else { Err(Failure::Malformed) }
}

/// MGET takes what is no string for nothing.
fn both_of([entry, bucket]: [Option<Vec<u8>>; 2], there: usize) -> Result<Found, Failure> {
    if usize::from(entry.is_some()) + usize::from(bucket.is_some()) != there {
        return Err(Failure::Malformed);
    }
    Found::new(entry.unwrap_or_default(), bucket.unwrap_or_default())
}

impl Found {
    pub(crate) fn new(entry_bytes: Vec<u8>, bucket_bytes: Vec<u8>) -> Result<Self, Failure> {
        let entry = decode(&entry_bytes)?;
        let bucket = if bucket_bytes.is_empty() { None } else { Some(Bucket::decode(&bucket_bytes)?) };
        Ok(Self { entry_bytes, bucket_bytes, entry, bucket })
    }
}

/// Nothing is no entry.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Entry>, Failure> {
    if bytes.is_empty() { Ok(None) } else { Ok(Some(Entry::decode(bytes)?)) }
}
