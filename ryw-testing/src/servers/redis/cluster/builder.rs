use std::{sync::Arc, time::Duration};

use super::{
    super::{
        RedisServer, RedisServerBuilder, ServerError,
        announce::Announce,
        home::Home,
        port::{ReservedPort, reserve},
    },
    RedisCluster, SLOTS,
};

const MASTERS: usize = 3;

/// What a [`RedisCluster`] is like. Made by [`RedisCluster::builder`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct RedisClusterBuilder {
    server: RedisServerBuilder,
    announce: Announce,
    replicas: bool,
}

/// A server that is not in the cluster yet, with the second port that each has, for the others.
struct Node {
    server: RedisServer,
    bus: ReservedPort,
}

impl RedisClusterBuilder {
    /// Sets a setting on each server, as [`RedisServerBuilder::setting`] does. Default: also
    /// `cluster-node-timeout` is `1000`.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.server = self.server.setting(name, value);
        self
    }

    /// Makes each server [persistent](RedisServerBuilder::persistent). Default: they are not.
    pub fn persistent(mut self) -> Self {
        self.server = self.server.persistent();
        self
    }

    /// Gives each master a replica, by which the cluster replaces it once it is gone. Default: it
    /// has none.
    pub fn replicas(mut self) -> Self {
        self.replicas = true;
        self
    }

    /// Tells clients and replicas to reach the server at port `p` at the port `port(p)`, where a
    /// [`Proxy`](crate::proxy::Proxy) to it has to be. It is called once for each server, masters
    /// first, before any is started. What the servers say to each other to agree on the state of
    /// the cluster takes another way. Default: the port itself.
    pub fn announce(mut self, port: impl FnMut(u16) -> u16 + Send + 'static) -> Self {
        self.announce = Announce::with(port);
        self
    }

    /// How long each single wait may take, for example for the servers to agree. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server = self.server.timeout(timeout);
        self
    }

    /// Starts all, spreads the slots evenly, and returns when each server knows all others and
    /// calls the cluster's state `ok`. This blocks, usually for two to three seconds: in async
    /// code, call it in `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn start(mut self) -> Result<RedisCluster, ServerError> {
        self.server.check()?;
        let nodes = self.start_nodes(&Arc::new(Home::create(self.server.timeout)?))?;
        let ids = nodes.iter().map(|node| node.server.cli(&["CLUSTER", "MYID"])).collect::<Result<Vec<_>, _>>()?;
        join(&nodes)?;
        for (replica, master) in nodes.iter().skip(MASTERS).zip(&ids) {
            let server = &replica.server;
            // It is refused until it has heard of its master.
            server
                .wait_for("did not become a replica", || server.cli(&["CLUSTER", "REPLICATE", master]).map(|_| true))?;
        }
        let (servers, buses) = nodes.into_iter().map(|Node { server, bus }| (server, bus)).unzip();
        let cluster = RedisCluster { servers, ids, _buses: buses };
        cluster.wait_ok()?;
        Ok(cluster)
    }

    fn start_nodes(&mut self, home: &Arc<Home>) -> Result<Vec<Node>, ServerError> {
        let count = if self.replicas { 2 * MASTERS } else { MASTERS };
        let mut nodes = Vec::new();
        for number in 1..=count {
            let mut server = self.server.create(&format!("node{number}"), home)?;
            let bus = reserve()?;
            server.announce(self.announce.port(server.port()));
            let mut settings = vec![("cluster-node-timeout".into(), "1000".into())];
            settings.extend(self.server.settings(&server));
            let own = [
                ("cluster-enabled", "yes".into()),
                // Not the port and 10000, which need not be free.
                ("cluster-port", bus.get().to_string()),
                ("cluster-announce-ip", "127.0.0.1".into()),
                ("cluster-announce-port", server.announced_port().to_string()),
            ];
            settings.extend(own.map(|(name, value): (&str, String)| (name.to_owned(), value)));
            server.configure(&settings)?;
            nodes.push(Node { server, bus });
        }
        nodes.iter_mut().try_for_each(|node| node.server.launch())?;
        nodes.iter_mut().try_for_each(|node| node.server.wait_ready())?;
        Ok(nodes)
    }
}

/// Gives each master its slots, and introduces all others to the first.
fn join(nodes: &[Node]) -> Result<(), ServerError> {
    for (number, node) in nodes.iter().enumerate() {
        // Different from the start, so that no two masters have to settle whose slots count.
        node.server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        if number < MASTERS {
            let (first, last) = (share(number), share(number + 1) - 1);
            node.server.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        }
    }
    let Some((first, others)) = nodes.split_first() else { return Ok(()) };
    for Node { server, bus } in others {
        let (port, bus) = (server.port().to_string(), bus.get().to_string());
        first.server.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
    }
    Ok(())
}

/// The first slot of that master.
fn share(master: usize) -> usize {
    usize::from(SLOTS) * master / MASTERS
}
