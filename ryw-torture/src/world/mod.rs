//! Everything that runs: a PostgreSQL primary with two standbys, a Redis, three instances of the service, and the networks
//! between them.

mod failover;
mod inject;
mod instances;
mod links;

use std::path::Path;

use ryw_testing::{
    proxy::Proxy,
    servers::{
        ServerError,
        postgres::{Cluster, Server, Standby},
        redis::RedisServer,
    },
};
use tokio::task::block_in_place;

pub(crate) use inject::inject;

use self::{instances::Instance, links::Links};
use crate::{error::Error, plan::INSTANCES, service};

/// Dropping it ends and removes all of it.
#[derive(Debug)]
pub(crate) struct World {
    instances: Vec<Instance>,
    cluster: Cluster,
    redis: RedisServer,
    links: Links,
    /// Between the first instance and what it needs.
    to_redis: Proxy,
    to_servers: Vec<Proxy>,
    /// The name of the primary, and those of the standbys.
    primary: String,
    standbys: Vec<String>,
}

fn server_error(error: ServerError) -> Error {
    Error::new("a server", error)
}

impl World {
    /// Starts all of it. Logs of the instances go into `folder`.
    pub(crate) async fn start(folder: &Path) -> Result<Self, Error> {
        let (cluster, redis) = tokio::task::spawn_blocking(servers).await.map_err(Error::with("a task"))??;
        let servers: Vec<&Server> = std::iter::once(cluster.primary()).chain(cluster.standbys()).collect();
        let ports: Vec<(String, u16)> =
            servers.iter().map(|server| (server.name().to_owned(), server.port())).collect();
        let links = Links::between(&ports).await?;
        let proxy =
            |port: u16| async move { Proxy::start([("127.0.0.1", port)]).await.map_err(Error::with("a proxy")) };
        let to_redis = proxy(redis.port()).await?;
        let mut to_servers = Vec::new();
        for (_, port) in &ports {
            to_servers.push(proxy(*port).await?);
        }
        let mut names = ports.into_iter().map(|(name, _)| name);
        let primary = names.next().unwrap_or_default();
        let mut world = Self {
            instances: Vec::new(),
            standbys: names.collect(),
            primary,
            cluster,
            redis,
            links,
            to_redis,
            to_servers,
        };
        world.connect()?;
        world.launch(folder).await?;
        Ok(world)
    }

    /// Lets the standbys replicate through their links.
    fn connect(&self) -> Result<(), Error> {
        for standby in &self.standbys {
            let port = self.link(&self.primary, standby)?;
            block_in_place(|| self.cluster.reconnect(standby, port)).map_err(server_error)?;
        }
        Ok(())
    }

    async fn launch(&mut self, folder: &Path) -> Result<(), Error> {
        let keys = format!("1:{}", "A".repeat(42) + "A=");
        for number in 0..INSTANCES {
            let cut = number == 0;
            // What is demanded must not stand in the way of what is asked for.
            let minimum = if number == 1 { "RYW" } else { "EVENTUAL" };
            let mut arguments: Vec<String> = ["--keys", &keys, "--minimum", minimum].map(str::to_owned).into();
            let redis = if cut { self.to_redis.port() } else { self.redis.port() };
            arguments.extend(["--redis".to_owned(), format!("redis://127.0.0.1:{redis}")]);
            for (server, proxy) in self.servers().zip(&self.to_servers) {
                let port = if cut { proxy.port() } else { server.port() };
                let node = format!("{}=postgres://ryw@127.0.0.1:{port}/postgres", server.name());
                arguments.extend(["--node".to_owned(), node]);
            }
            let mut instance = Instance::new(number, arguments, folder).await?;
            instance.start().await?;
            self.instances.push(instance);
        }
        Ok(())
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.instances.iter().map(Instance::url).collect()
    }

    /// All servers: name and connection string.
    pub(crate) fn nodes(&self) -> Vec<(String, String)> {
        self.servers().map(|server| (server.name().to_owned(), server.url())).collect()
    }

    /// Puts the servers' logs into `folder`, where they can be looked at when the servers are gone.
    pub(crate) fn keep_logs(&self, folder: &Path) {
        for server in self.servers() {
            let log = format!("{}.log", server.name());
            if let Err(error) = std::fs::copy(self.cluster.folder().join(&log), folder.join(&log)) {
                eprintln!("the log of {} is not kept: {error}", server.name());
            }
        }
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(self.cluster.primary()).chain(self.cluster.standbys())
    }

    fn server(&self, name: &str) -> Result<&Server, Error> {
        self.cluster.server(name).ok_or_else(|| Error::new("no such server", name.to_owned()))
    }

    fn server_mut(&mut self, name: &str) -> Result<&mut Server, Error> {
        self.cluster.server_mut(name).ok_or_else(|| Error::new("no such server", name.to_owned()))
    }

    fn psql(&self, name: &str, sql: &str) -> Result<String, Error> {
        let server = self.server(name)?;
        block_in_place(|| server.psql(sql)).map_err(server_error)
    }

    fn link(&self, upstream: &str, standby: &str) -> Result<u16, Error> {
        self.links.port(upstream, standby).ok_or_else(|| Error::new("no link", format!("{upstream} to {standby}")))
    }

    /// Ends the service, so that nothing writes any more, and waits until all servers show the same.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        for instance in &mut self.instances {
            instance.kill().await?;
        }
        self.caught_up().await
    }
}

fn servers() -> Result<(Cluster, RedisServer), Error> {
    let cluster = Cluster::builder()
        .standby(Standby::named("r1"))
        .standby(Standby::named("r2"))
        // What is written between two failovers has to be there for the one that comes back.
        .setting("wal_keep_size", "256MB")
        .setting("max_wal_size", "512MB")
        .setting("checkpoint_timeout", "30s")
        .setting("autovacuum_naptime", "5s")
        .start()
        .map_err(server_error)?;
    cluster.primary().psql(service::SCHEMA).map_err(server_error)?;
    let redis = RedisServer::builder().start().map_err(server_error)?;
    Ok((cluster, redis))
}
