//! The service under test, as a process of its own: `ryw-torture serve`.
//!
//! Lists and registers in PostgreSQL, behind the real layer with marks in a real Redis. Every answer tells which server it
//! came from. The routes below `/naive` are not behind the layer: what they let through is what the rest is measured by.

mod clock;
mod routes;
mod sql;

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use ryw_core::Keyring;
use ryw_postgres::RywPool;
use ryw_redis::RedisStore;
use tokio::{net::TcpListener, sync::oneshot};
use tower_ryw::{CookiePolicy, Level, RywLayer};

pub(crate) use sql::{FINAL, SCHEMA};

use crate::error::Error;

/// The beginning of the paths that are not behind the layer.
pub(crate) const UNGATED: &str = "/naive";
/// The header with the name of the server that answered.
pub(crate) const NODE: &str = "x-test-node";
/// The header with its timeline, where it was the primary.
pub(crate) const EPOCH: &str = "x-test-epoch";

/// How long one request may take in the database.
const DEADLINE: Duration = Duration::from_secs(2);

/// One instance.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// A PostgreSQL server, as NAME=URL; repeatable
    #[arg(long, required = true, value_name = "NAME=URL", value_parser = named)]
    node: Vec<(String, String)>,
    /// The Redis that instances share their marks through
    #[arg(long, value_name = "URL")]
    redis: String,
    /// The level that every request is served at, at least
    #[arg(long, value_name = "LEVEL")]
    minimum: Level,
    /// The keys that tokens are signed with
    #[arg(long, value_name = "KEYS")]
    keys: String,
    /// How far its wall clock is ahead of this machine's
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_ahead: i64,
}

fn named(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or("write it as NAME=URL")?;
    Ok((name.to_owned(), url.to_owned()))
}

/// Serves until standard input ends, which it does with the process that started this one, however that ends.
pub(crate) async fn serve(options: &Options) -> Result<(), Error> {
    clock::set_ahead(options.clock_ahead);
    let pool = pool(options).await?;
    let store = RedisStore::builder().connect_lazy(options.redis.as_str()).map_err(Error::with("the Redis URL"))?;
    let keys = Keyring::parse(&options.keys).map_err(Error::with("the keys"))?;
    let layer = RywLayer::builder()
        .store(store)
        .positions(pool.topology().clone())
        .signing_keys(keys)
        .cookie(CookiePolicy::InsecureForDevelopment)
        .level(options.minimum)
        .build()
        .map_err(Error::with("the layer"))?;
    let listener = TcpListener::bind(options.listen).await.map_err(Error::with("can't listen"))?;
    let (ended, orphaned) = oneshot::channel();
    // Not a task: the runtime would wait for it.
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    tokio::select! {
        served = async { axum::serve(listener, routes::routes(pool, layer)).await } => {
            served.map_err(Error::with("can't serve"))
        }
        _ = orphaned => Ok(()),
    }
}

async fn pool(options: &Options) -> Result<RywPool, Error> {
    let mut builder = RywPool::builder().max_connections(12);
    for (number, (name, url)) in options.node.iter().enumerate() {
        // Which of them is the primary they say themselves.
        builder = if number == 0 { builder.primary(url) } else { builder.replica_named(name, url) };
    }
    builder.connect().await.map_err(Error::with("can't connect to PostgreSQL"))
}
