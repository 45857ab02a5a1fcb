//! Takes jobs, and reads each one's note as the service's client.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_client::{Envelope, Session, reqwest::Client};

use crate::queue::Queue;

/// For one job's request, retries of it apart.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most notes that are remembered.
const MAX_INDEXED: usize = 10_000;

/// What jobs have read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index(Arc<Mutex<BTreeMap<String, String>>>);

pub(crate) struct Worker {
    pub(crate) queue: Arc<Queue>,
    pub(crate) index: Index,
    /// The service's URL.
    pub(crate) service: String,
    pub(crate) drop_envelopes: bool,
}

impl Index {
    pub(crate) fn get(&self, note: &str) -> Option<String> {
        self.0.lock().get(note).cloned()
    }

    fn put(&self, note: String, text: String) {
        let mut index = self.0.lock();
        if index.len() < MAX_INDEXED || index.contains_key(&note) {
            index.insert(note, text);
        }
    }
}

impl Worker {
    pub(crate) async fn run(self) {
        loop {
            let (note, envelope) = self.queue.pop().await;
            let envelope = if self.drop_envelopes { Envelope::default() } else { envelope };
            match self.read(&note, &envelope).await {
                Ok(text) => self.index.put(note, text),
                Err(error) => eprintln!("a job failed: {error}"),
            }
        }
    }

    /// A session for each job: what one has seen is no concern of the next.
    async fn read(&self, note: &str, envelope: &Envelope) -> Result<String, Box<dyn Error + Send + Sync>> {
        let client = Client::new(Session::resume(envelope))?;
        let response = client.get(format!("{}/notes/{note}", self.service)).timeout(TIMEOUT).send().await?;
        if response.status() == 404 {
            return Ok("nothing".into());
        }
        Ok(response.error_for_status()?.text().await?)
    }
}
