//! Masters that share the keys.

mod builder;
mod slots;

use super::{RedisServer, ServerError, config, port::ReservedPort};

pub use self::builder::RedisClusterBuilder;

/// How many slots the keys are spread over.
const SLOTS: u16 = 16384;

/// Three masters that share the slots evenly, each with a replica if the builder was told so.
///
/// See the [module](super) for what can be done to the servers, and what is left behind.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<RedisServer>,
    /// Of each server, in the same order.
    ids: Vec<String>,
    /// The ports at which the servers talk to each other, held while they are down.
    _buses: Vec<ReservedPort>,
}

impl RedisCluster {
    /// A builder for three masters without replicas, which persist nothing.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder::default()
    }

    /// The servers: those that were masters at the start, then their replicas in the same order.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Like [`servers`](Self::servers), to stop, kill or start them.
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The connection strings of all [`servers`](Self::servers), each of which tells a client of
    /// all others.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }

    /// Waits until [`is_ok`](Self::is_ok). After a failover, this is when all is over.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Timeout`](super::ServerErrorKind::Timeout) if that does not come, or what
    /// hinders it if that is known.
    pub fn wait_ok(&self) -> Result<(), ServerError> {
        let first = self.running().next().ok_or_else(|| config::invalid("no server of the cluster runs".into()))?;
        first.wait_for("and the others did not agree", || self.is_ok())
    }

    /// Whether each server that runs calls the cluster's state `ok`, gives all slots to servers that
    /// run, and, if it is a replica, is in sync. A crash counts at once, before they know of it.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::cli`].
    pub fn is_ok(&self) -> Result<bool, ServerError> {
        let known = format!("cluster_known_nodes:{}", self.servers.len());
        for server in self.running() {
            let info = server.cli(&["CLUSTER", "INFO"])?;
            let says = |wanted: &str| info.lines().any(|line| line == wanted);
            let is_replica = server.info("role")? == "slave";
            let agrees = says("cluster_state:ok") && says("cluster_slots_ok:16384") && says(&known);
            if !agrees || is_replica && server.info("master_link_status")? != "up" || !self.is_spread(server)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter().filter(|server| server.pid().is_some())
    }
}
