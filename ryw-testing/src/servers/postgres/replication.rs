//! Who follows whom.

use super::{Cluster, Server, ServerError, config};

impl Cluster {
    /// Makes the standby `standby` replicate from `upstream`, for example from one that was
    /// [promoted](Server::promote), and waits until it streams.
    ///
    /// A primary that was replaced cannot be brought back this way, since its own last writes may be
    /// on no other server: see [`rewind`](Self::rewind).
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] if there is no server of one of the names, [`Sql`] if one is down,
    /// [`Timeout`] if it does not stream in time.
    ///
    /// [`InvalidConfig`]: super::ServerErrorKind::InvalidConfig
    /// [`Sql`]: super::ServerErrorKind::Sql
    /// [`Timeout`]: super::ServerErrorKind::Timeout
    pub fn follow(&self, standby: &str, upstream: &str) -> Result<(), ServerError> {
        let (standby, upstream) = (self.find(standby)?, self.find(upstream)?);
        create_slots(upstream, &[standby.name()])?;
        for (name, value) in config::upstream(standby.name(), upstream.port()) {
            standby.alter(&name, &value)?;
        }
        standby.reload()?;
        wait_streaming(upstream, &[standby.name()])
    }
}

impl Server {
    fn alter(&self, setting: &str, value: &str) -> Result<(), ServerError> {
        let value = value.replace('\'', "''");
        self.psql(&format!("alter system set {setting} = '{value}'")).map(drop)
    }

    fn reload(&self) -> Result<(), ServerError> {
        self.psql("select pg_reload_conf()").map(drop)
    }
}

pub(super) fn create_slots(upstream: &Server, standbys: &[&str]) -> Result<(), ServerError> {
    for standby in standbys {
        upstream.psql(&format!(
            "select pg_create_physical_replication_slot('{standby}', true) \
             where not exists (select from pg_replication_slots where slot_name = '{standby}')"
        ))?;
    }
    Ok(())
}

pub(super) fn wait_streaming(upstream: &Server, standbys: &[&str]) -> Result<(), ServerError> {
    let query = format!(
        "select count(*) from pg_stat_replication \
         where state = 'streaming' and application_name in ('{}')",
        standbys.join("', '")
    );
    let failure = format!("had not all of {standbys:?} streaming");
    upstream.wait_for(&query, &standbys.len().to_string(), &failure)
}
