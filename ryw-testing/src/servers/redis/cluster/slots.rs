//! Which server has which keys.

use super::{
    super::{
        RedisServer, ServerError, config,
        resp::Reply::{self, Int, List, Text},
    },
    RedisCluster,
};

/// Of the keys that are moved at once.
const BATCH: &str = "100";

impl RedisCluster {
    /// The slot of `key`: of the part in braces if there is one.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Command`](crate::servers::ServerErrorKind::Command) if no server runs.
    pub fn slot(&self, key: &str) -> Result<u16, ServerError> {
        let slot = self.any()?.cli(&["CLUSTER", "KEYSLOT", key])?;
        slot.parse().map_err(|_| config::invalid(format!("{slot:?} is no slot")))
    }

    /// The master of that slot, as the first server has it that runs.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] if there is no such slot or no master of it, and as
    /// [`RedisServer::cli`].
    ///
    /// [`InvalidConfig`]: crate::servers::ServerErrorKind::InvalidConfig
    pub fn owner(&self, slot: u16) -> Result<&RedisServer, ServerError> {
        let owner = self.owner_at(self.any()?, slot)?;
        owner.ok_or_else(|| config::invalid(format!("slot {slot} has no owner")))
    }

    /// Moves the slot with all its keys from one master to another, and returns when all servers
    /// that run know it. Clients may go on meanwhile; they are redirected.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] if `from` is not the slot's master, or the two are the same or not of this
    /// cluster; [`Command`] if one of them refuses a step, after which the slot may be left
    /// half-way, and can be moved again; [`Timeout`] if a server does not hear of it.
    ///
    /// [`Command`]: crate::servers::ServerErrorKind::Command
    /// [`InvalidConfig`]: crate::servers::ServerErrorKind::InvalidConfig
    /// [`Timeout`]: crate::servers::ServerErrorKind::Timeout
    pub fn migrate_slot(&self, slot: u16, from: &RedisServer, to: &RedisServer) -> Result<(), ServerError> {
        let (from_id, to_id) = (self.id(from)?, self.id(to)?);
        let is_owner = self.owner_at(from, slot)?.is_some_and(|owner| owner.port() == from.port());
        if !is_owner || from_id == to_id {
            let text = format!("slot {slot} cannot be moved from {} to {}", from.name(), to.name());
            return Err(config::invalid(text));
        }
        let number = slot.to_string();
        // In this order: the new owner must take the redirected ones, and be the first to say that it
        // owns the slot, which nobody would otherwise.
        to.cli(&["CLUSTER", "SETSLOT", &number, "IMPORTING", from_id])?;
        from.cli(&["CLUSTER", "SETSLOT", &number, "MIGRATING", to_id])?;
        move_keys(&number, from, to)?;
        for server in [to, from] {
            server.cli(&["CLUSTER", "SETSLOT", &number, "NODE", to_id])?;
        }
        for server in self.running() {
            server.wait_for("did not hear of the slot's new owner", || {
                Ok(self.owner_at(server, slot)?.is_some_and(|owner| owner.port() == to.port()))
            })?;
        }
        Ok(())
    }

    /// Whether `server` gives each slot to a master that runs.
    pub(super) fn is_spread(&self, server: &RedisServer) -> Result<bool, ServerError> {
        let slots = server.ask(&["CLUSTER", "SLOTS"])?;
        let runs = |id| self.by_id(id).is_some_and(|owner| owner.pid().is_some());
        Ok(slots.list().iter().all(|range| matches!(range_of(range), Some((_, _, id)) if runs(id))))
    }

    fn owner_at(&self, server: &RedisServer, slot: u16) -> Result<Option<&RedisServer>, ServerError> {
        let slots = server.ask(&["CLUSTER", "SLOTS"])?;
        let slot = i64::from(slot);
        let range = slots.list().iter().filter_map(range_of).find(|(first, last, _)| (*first..=*last).contains(&slot));
        Ok(range.and_then(|(_, _, id)| self.by_id(id)))
    }

    fn by_id(&self, id: &[u8]) -> Option<&RedisServer> {
        self.servers.iter().zip(&self.ids).find(|(_, own)| own.as_bytes() == id).map(|(server, _)| server)
    }

    fn id(&self, server: &RedisServer) -> Result<&str, ServerError> {
        let known = self.servers.iter().zip(&self.ids).find(|(own, _)| own.folder() == server.folder());
        known.map(|(_, id)| id.as_str()).ok_or_else(|| {
            config::invalid(format!("{} at port {} is not of this cluster", server.name(), server.port()))
        })
    }

    fn any(&self) -> Result<&RedisServer, ServerError> {
        self.running().next().ok_or_else(|| config::invalid("no server of the cluster runs".into()))
    }
}

/// The first and the last slot, and the master's id, of an entry of `CLUSTER SLOTS`.
fn range_of(entry: &Reply) -> Option<(i64, i64, &[u8])> {
    match entry.list() {
        [Int(first), Int(last), List(master), ..] => match master.as_slice() {
            [_, _, Text(id), ..] => Some((*first, *last, id)),
            _ => None,
        },
        _ => None,
    }
}

fn move_keys(slot: &str, from: &RedisServer, to: &RedisServer) -> Result<(), ServerError> {
    let (port, limit) = (to.port().to_string(), from.home.timeout.as_millis().max(1).to_string());
    // Until there are none: a key that exists is still written to where it is.
    loop {
        let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", slot, BATCH])?;
        let keys: Vec<&[u8]> =
            keys.list().iter().filter_map(|key| if let Text(key) = key { Some(&**key) } else { None }).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut migrate: Vec<&[u8]> =
            vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", limit.as_bytes(), b"KEYS"];
        migrate.extend(keys);
        from.ask_bytes(&migrate)?;
    }
}
