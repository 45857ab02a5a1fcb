use std::{iter, sync::Arc, time::Duration};

use super::{
    super::{RedisServer, RedisServerBuilder, ServerError, announce::Announce, config, home::Home},
    QUORUM, SERVICE, Sentinels,
};

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];
const SENTINELS: [&str; 3] = ["sentinel1", "sentinel2", "sentinel3"];

/// What [`Sentinels`] are like. Made by [`Sentinels::builder`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct SentinelsBuilder {
    server: RedisServerBuilder,
    announce: Announce,
}

impl SentinelsBuilder {
    /// Sets a setting on each server, as [`RedisServerBuilder::setting`] does. The sentinels are
    /// not affected.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.server = self.server.setting(name, value);
        self
    }

    /// Makes each server [persistent](RedisServerBuilder::persistent). Default: they are not, and a
    /// master that is started again before a failover empties its replicas.
    pub fn persistent(mut self) -> Self {
        self.server = self.server.persistent();
        self
    }

    /// Demands that password of the servers' clients, replicas and sentinels; the sentinels demand
    /// none of theirs. Default: none.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.server = self.server.password(password);
        self
    }

    /// Tells everybody to reach the server at port `p` at the port `port(p)`, where a
    /// [`Proxy`](crate::proxy::Proxy) to it has to be. It is called once for each server, the
    /// master first, before any is started. Default: the port itself.
    pub fn announce(mut self, port: impl FnMut(u16) -> u16 + Send + 'static) -> Self {
        self.announce = Announce::with(port);
        self
    }

    /// How long each single wait may take, for example for the sentinels to agree. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server = self.server.timeout(timeout);
        self
    }

    /// Starts all, and returns when the replicas are in sync and each sentinel knows all others and
    /// all servers, so that a failover can begin. This blocks, usually for two to three seconds: in
    /// async code, call it in `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn start(mut self) -> Result<Sentinels, ServerError> {
        self.server.check()?;
        let home = Arc::new(Home::create(self.server.timeout)?);
        let servers = self.start_servers(&home)?;
        let sentinels = self.start_sentinels(&home, servers.first().map_or(0, RedisServer::announced_port))?;
        let set = Sentinels { servers, sentinels };
        set.wait_agreed()?;
        Ok(set)
    }

    fn start_servers(&mut self, home: &Arc<Home>) -> Result<Vec<RedisServer>, ServerError> {
        let mut servers = Vec::new();
        let mut master = None;
        for name in SERVERS {
            let mut server = self.server.create(name, home)?;
            server.announce(self.announce.port(server.port()));
            let mut settings = self.server.settings(&server);
            settings.extend(master.map(config::replica_of));
            master.get_or_insert(server.announced_port());
            server.configure(&settings)?;
            servers.push(server);
        }
        servers.iter_mut().try_for_each(RedisServer::launch)?;
        servers.iter_mut().try_for_each(RedisServer::wait_ready)?;
        for replica in servers.iter().skip(1) {
            replica.wait_for("was not in sync", || Ok(replica.info("master_link_status")? == "up"))?;
        }
        Ok(servers)
    }

    /// Only after the servers: a sentinel looks for replicas at its start, and then each 10 s.
    fn start_sentinels(&self, home: &Arc<Home>, master: u16) -> Result<Vec<RedisServer>, ServerError> {
        let mut sentinels = Vec::new();
        for name in SENTINELS {
            let mut sentinel = RedisServerBuilder::default().create(name, home)?;
            sentinel.sentinel = true;
            let mut settings = config::process(sentinel.port(), sentinel.folder());
            let auth =
                self.server.password.iter().map(|password| format!("auth-pass {SERVICE} {}", config::quote(password)));
            let lines = iter::once(format!("monitor {SERVICE} 127.0.0.1 {master} {QUORUM}")).chain(auth).chain([
                format!("down-after-milliseconds {SERVICE} 500"),
                format!("failover-timeout {SERVICE} 3000"),
                format!("parallel-syncs {SERVICE} 1"),
            ]);
            settings.extend(lines.map(|line| ("sentinel".into(), line)));
            sentinel.configure(&settings)?;
            sentinels.push(sentinel);
        }
        sentinels.iter_mut().try_for_each(RedisServer::launch)?;
        sentinels.iter_mut().try_for_each(RedisServer::wait_ready)?;
        Ok(sentinels)
    }
}
