//! Which server of a Redis Cluster has which bucket.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::Instant;

use crate::{
    address::{Address, Template},
    error::ConnectError,
    find::Find,
    keys::KeySpace,
    node::{Node, NodeSettings},
};

/// Between two looks at the map of the cluster.
const LOOK: Duration = Duration::from_millis(100);

/// All servers that have buckets of ours.
#[derive(Debug)]
pub(crate) struct Cluster {
    settings: NodeSettings,
    template: Template,
    seeds: Vec<Address>,
    /// Of each bucket.
    slots: [u16; 64],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<Address, Arc<Node>>,
    owners: Vec<Option<Address>>,
    looked: Option<Instant>,
}

impl Cluster {
    pub(crate) fn new(settings: NodeSettings, template: Template, seeds: Vec<Address>) -> Self {
        let slots = std::array::from_fn(KeySpace::slot);
        Self { settings, template, seeds, slots, state: Mutex::default() }
    }

    /// Who has that bucket, as far as is known.
    pub(crate) fn owner(&self, bucket: usize) -> Option<Arc<Node>> {
        let mut state = self.state.lock();
        let address = state.owners.get(bucket)?.clone()?;
        self.node_in(&mut state, &address)
    }

    /// Where a server is that has no name for itself.
    pub(crate) fn any(&self) -> Address {
        self.seeds[0].clone()
    }

    pub(crate) fn node(&self, address: &Address) -> Option<Arc<Node>> {
        self.node_in(&mut self.state.lock(), address)
    }

    /// A server says that this one has that bucket now.
    pub(crate) fn moved(&self, bucket: usize, address: &Address) {
        let mut state = self.state.lock();
        state.owners.resize(64, None);
        state.owners[bucket] = Some(address.clone());
    }

    /// Asks who has what, unless somebody has done so a moment ago.
    pub(crate) async fn look(&self) -> Result<(), ConnectError> {
        let mut addresses = self.seeds.clone();
        {
            let mut state = self.state.lock();
            if state.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
                return Ok(());
            }
            state.looked = Some(Instant::now());
            addresses.extend(state.nodes.keys().filter(|address| !self.seeds.contains(address)).cloned());
        }
        let mut answers: FuturesUnordered<_> = addresses.iter().map(|address| self.ask(address)).collect();
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(owners) => {
                    let mut state = self.state.lock();
                    // What nobody asks any more ends.
                    state.nodes.retain(|address, _| owners.contains(&Some(address.clone())));
                    state.owners = owners;
                    return Ok(());
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.map_or_else(|| ConnectError::new(crate::ConnectErrorKind::Url), ConnectError::from))
    }

    /// The owner of each bucket, as that server has it.
    async fn ask(&self, address: &Address) -> Result<Vec<Option<Address>>, RedisError> {
        let deadline = Some(self.settings.deadline);
        let config = AsyncConnectionConfig::new().set_connection_timeout(deadline).set_response_timeout(deadline);
        let client = self.template.client(address)?;
        let mut redis: MultiplexedConnection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut question = Pipeline::with_capacity(2);
        question.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let (info, slots): (String, Vec<Value>) = question.query_async(&mut redis).await?;
        if !info.lines().any(|line| line.trim_end() == "cluster_state:ok") {
            // It is cut off, and what it has may be old.
            return Err((ErrorKind::Io, "the server is cut off from its cluster").into());
        }
        let ranges: Vec<_> = slots.iter().filter_map(|range| range_of(range, address)).collect();
        let owner = |slot: &u16| ranges.iter().find(|(first, last, _)| (first..=last).contains(&slot));
        Ok(self.slots.iter().map(|slot| owner(slot).map(|(_, _, address)| address.clone())).collect())
    }

    fn node_in(&self, state: &mut State, address: &Address) -> Option<Arc<Node>> {
        if let Some(node) = state.nodes.get(address) {
            return Some(Arc::clone(node));
        }
        let client = self.template.client(address).ok()?;
        let node = Arc::new(Node::new(&self.settings, Find::InCluster(client, address.clone())));
        state.nodes.insert(address.clone(), Arc::clone(&node));
        Some(node)
    }
}

/// An entry of `CLUSTER SLOTS`: first, last, master, replicas.
fn range_of(range: &Value, of: &Address) -> Option<(u16, u16, Address)> {
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_sequence()? else { return None };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
        _ => of.host.clone(),
    };
    let number = |number: &i64| u16::try_from(*number).ok();
    Some((number(first)?, number(last)?, Address { host, port: number(port)? }))
}
