//! What is done on the server in one step. Scripts are constants, and what a request brings is never part of one.

use redis::{FromRedisValue, Pipeline, Script};

use crate::{
    error::{Failure, code},
    server::Connection,
};

/// The scripts, by their hashes.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) join: Hashed,
    pub(crate) exchange: Hashed,
}

pub(crate) struct Hashed {
    script: Script,
    code: &'static str,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        let hashed = |code| Hashed { script: Script::new(code), code };
        Self { join: hashed(include_str!("script/join.lua")), exchange: hashed(include_str!("script/exchange.lua")) }
    }
}

impl Hashed {
    /// Adds one call to the pipeline.
    pub(crate) fn call(&self, pipeline: &mut Pipeline, keys: [&[u8]; 2], arguments: &[&[u8]]) {
        pipeline.cmd("EVALSHA").arg(self.script.get_hash()).arg(2).arg(&keys[..]).arg(arguments);
    }

    /// Sends calls of this script, and the script itself when the server does not know it.
    pub(crate) async fn run<T: FromRedisValue>(&self, connection: &Connection, calls: &Pipeline) -> Result<T, Failure> {
        match connection.query(calls).await {
            // Calls that were made twice have made no difference.
            Err(Failure::Redis(error)) if code(&error).as_deref() == Some("NOSCRIPT") => {
                let mut load = Pipeline::with_capacity(1);
                load.cmd("SCRIPT").arg("LOAD").arg(self.code).ignore();
                connection.query::<()>(&load).await?;
                connection.query(calls).await
            }
            answer => answer,
        }
    }
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.script.get_hash())
    }
}
