//! A master with replicas, and the sentinels that replace it.

mod builder;

use std::time::Duration;

use super::{RedisServer, ServerError, ServerErrorKind, config, resp::Reply};

pub use self::builder::SentinelsBuilder;

const SERVICE: &str = "ryw";
const QUORUM: usize = 2;
/// For one look at a sentinel, which may be frozen, while the others are enough.
const LOOK: Duration = Duration::from_secs(1);

/// A master and two replicas, watched by three sentinels, two of which are enough to replace the
/// master by a replica: about one to two seconds after it is gone, as they wait for half a second.
///
/// See the [module](super) for what can be done to the servers, and what is left behind. A master
/// that was replaced while it was down is a master when it comes back, until the sentinels make it
/// a replica some seconds later: [`wait_agreed`](Self::wait_agreed) waits for that too. They rewrite
/// the configuration of those they reach, so a server that is started again has the role it had.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// A builder for servers that persist nothing and have no password.
    pub fn builder() -> SentinelsBuilder {
        SentinelsBuilder::default()
    }

    /// The name by which clients ask the sentinels for the master: `ryw`.
    #[must_use]
    pub fn service_name(&self) -> &str {
        SERVICE
    }

    /// The sentinels' connection strings, `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The three servers. The first was the master at the start.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Like [`servers`](Self::servers), to stop, kill or start them.
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The three sentinels. They take some of a server's commands, `SENTINEL` and `PING` above all.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// Like [`sentinels`](Self::sentinels), to stop, kill or start them.
    pub fn sentinels_mut(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// The server that at least two sentinels call the master now, whatever it says of itself. It
    /// may be down: they call it that until they have replaced it.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Command`] if no two sentinels name the same.
    pub fn master(&self) -> Result<&RedisServer, ServerError> {
        self.master_index().map(|master| &self.servers[master])
    }

    /// Like [`master`](Self::master), to stop or kill it.
    ///
    /// # Errors
    ///
    /// As [`master`](Self::master).
    pub fn master_mut(&mut self) -> Result<&mut RedisServer, ServerError> {
        self.master_index().map(|master| &mut self.servers[master])
    }

    /// Waits until each sentinel that runs calls the same server the master, which says so too and
    /// has the others that run for its replicas, and until it could replace it. After a failover,
    /// this is when all is over.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Timeout`] if that does not come, or what hinders it if that is known.
    pub fn wait_agreed(&self) -> Result<(), ServerError> {
        let first = running(&self.sentinels).next();
        let first = first.ok_or_else(|| config::invalid("no sentinel runs".into()))?;
        first.wait_for("and the others did not agree", || self.agreed())
    }

    fn agreed(&self) -> Result<bool, ServerError> {
        let master = self.master()?;
        let port = master.announced_port().to_string();
        let replicas: Vec<_> = running(&self.servers).filter(|server| server.port() != master.port()).collect();
        for replica in &replicas {
            if replica.info("master_port")? != port || replica.info("master_link_status")? != "up" {
                return Ok(false);
            }
        }
        for sentinel in running(&self.sentinels) {
            let healthy = |kind, accepted: &[&str]| -> Result<usize, ServerError> {
                let known = sentinel.ask(&["SENTINEL", kind, SERVICE])?;
                let is_healthy = |entry: &&Reply| accepted.iter().any(|fields| has(&entry.lines(), fields));
                Ok(known.list().iter().filter(is_healthy).count())
            };
            // Without its link's status, the sentinel has not heard of a replica and does not promote it.
            let knows_replicas = healthy("REPLICAS", &["flags slave master-link-status ok"])? == replicas.len();
            // The second is what another said of the former master, and is forgotten after 5 s.
            let others = healthy("SENTINELS", &["flags sentinel", "flags sentinel,master_down"])?;
            if named(sentinel)? != port || !knows_replicas || others + 1 != running(&self.sentinels).count() {
                return Ok(false);
            }
            sentinel.cli(&["SENTINEL", "CKQUORUM", SERVICE])?;
        }
        Ok(master.info("role")? == "master")
    }

    fn master_index(&self) -> Result<usize, ServerError> {
        let ports: Vec<String> = running(&self.sentinels).filter_map(|sentinel| named(sentinel).ok()).collect();
        let votes = |server: &RedisServer| {
            let port = server.announced_port().to_string();
            ports.iter().filter(|named| **named == port).count()
        };
        let master = self.servers.iter().position(|server| votes(server) >= QUORUM);
        master.ok_or_else(|| {
            let text = format!("the sentinels do not agree on the master: they name the ports {ports:?}");
            ServerError::new(ServerErrorKind::Command, text)
        })
    }
}

fn running(servers: &[RedisServer]) -> impl Iterator<Item = &RedisServer> + Clone {
    servers.iter().filter(|server| server.pid().is_some())
}

/// The port of the master, as that sentinel has it.
fn named(sentinel: &RedisServer) -> Result<String, ServerError> {
    let address = sentinel.ask_within(LOOK, &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", SERVICE.as_bytes()])?;
    Ok(address.lines().lines().nth(1).unwrap_or_default().to_owned())
}

/// Whether a list of names and values, one a line, has all of `fields`: names and values too.
fn has(entry: &str, fields: &str) -> bool {
    let lines: Vec<&str> = entry.lines().collect();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields.chunks(2).all(|field| lines.chunks(2).any(|pair| pair == field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name_and_value() {
        let entry = "name\nslave\nflags\nslave,s_down\nmaster-link-status\nok";
        for (fields, expected) in [
            ("master-link-status ok", true),
            ("name slave master-link-status ok", true),
            ("flags slave", false),
            ("slave flags", false),
            ("name slave flags slave", false),
        ] {
            assert_eq!(has(entry, fields), expected, "{fields}");
        }
    }
}
