//! Who is the master, as most of the sentinels have it.

use std::{fmt, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, Client, Pipeline, aio::MultiplexedConnection};

use crate::{
    address::{Address, Template},
    error::{ConnectError, ConnectErrorKind},
};

/// Those who know the master, and how to connect to it.
pub(crate) struct Sentinels {
    service: String,
    sentinels: Vec<Sentinel>,
    config: AsyncConnectionConfig,
    pub(crate) template: Template,
}

struct Sentinel {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Sentinels {
    pub(crate) fn new(service: String, clients: Vec<Client>, template: Template, deadline: Duration) -> Self {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(deadline));
        let sentinels = clients.into_iter().map(|client| Sentinel { client, connection: Mutex::new(None) }).collect();
        Self { service, sentinels, config, template }
    }

    /// One of them may be on the wrong side of a partition, with a master that was replaced on the other: more than half of
    /// those that were given have to name the same one.
    pub(crate) async fn master(&self) -> Result<Address, ConnectError> {
        let mut answers: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.ask(sentinel)).collect();
        let mut votes: Vec<(Address, usize)> = Vec::new();
        let mut error = ConnectError::new(ConnectErrorKind::NoMaster);
        while let Some(answer) = answers.next().await {
            let named = match answer {
                Ok(Some(named)) => named,
                Ok(None) => continue,
                Err(failed) => {
                    error = ConnectError::new(ConnectErrorKind::NoMaster).with_source(failed);
                    continue;
                }
            };
            let place = votes.iter().position(|(address, _)| *address == named).unwrap_or_else(|| {
                votes.push((named, 0));
                votes.len() - 1
            });
            votes[place].1 += 1;
            if 2 * votes[place].1 > self.sentinels.len() {
                return Ok(votes.swap_remove(place).0);
            }
        }
        Err(error)
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<Option<Address>, redis::RedisError> {
        let known = sentinel.connection.lock().clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let connection = sentinel.client.get_multiplexed_async_connection_with_config(&self.config).await?;
                sentinel.connection.lock().insert(connection).clone()
            }
        };
        let mut question = Pipeline::with_capacity(1);
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer: Result<(Option<(String, u16)>,), _> = question.query_async(&mut connection).await;
        if answer.is_err() {
            *sentinel.connection.lock() = None;
        }
        Ok(answer?.0.map(|(host, port)| Address { host, port }))
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels").field("service", &self.service).finish_non_exhaustive()
    }
}
