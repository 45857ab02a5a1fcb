//! Who follows whom, and who waits for whom.

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
        self.follow_through(standby, upstream, self.find(upstream)?.port())
    }

    /// Like [`follow`](Self::follow), through `port` of 127.0.0.1, where a [`Proxy`](crate::proxy::Proxy) to `upstream` has
    /// to be.
    ///
    /// # Errors
    ///
    /// As [`follow`](Self::follow).
    pub fn follow_through(&self, standby: &str, upstream: &str, port: u16) -> Result<(), ServerError> {
        let (standby, upstream) = (self.find(standby)?, self.find(upstream)?);
        create_slots(upstream, &[standby.name()])?;
        for (name, value) in config::upstream(standby.name(), port) {
            standby.alter(&name, &value)?;
        }
        standby.reload()?;
        wait_streaming(upstream, &[standby.name()])
    }

    /// Makes the standby `standby` reach its upstream at `port` of 127.0.0.1, and waits until it
    /// streams from there. Behind that port has to be the upstream it has: this is for a
    /// [`Proxy`](crate::proxy::Proxy) between them.
    ///
    /// It stays that way when it is started again, until the next [`follow`](Self::follow). A proxy
    /// that delivers nothing holds up [`stop_fast`](Server::stop_fast) of the upstream, which sends
    /// the standby all it has: heal it first, or [`kill`](Server::kill).
    ///
    /// # Errors
    ///
    /// As [`follow`](Self::follow).
    pub fn reconnect(&self, standby: &str, port: u16) -> Result<(), ServerError> {
        let standby = self.find(standby)?;
        standby.alter("primary_conninfo", &config::conninfo(standby.name(), port))?;
        standby.reload()?;
        // Asked of the standby: its upstream may still list the connection that it had.
        let query =
            format!("select count(*) from pg_stat_wal_receiver where status = 'streaming' and sender_port = {port}");
        standby.wait_for(&query, "1", &format!("did not stream from port {port}"))
    }

    /// Sets `synchronous_standby_names` of [`primary`](Self::primary), for example to `r1` or to
    /// `ANY 1 (r1, r2)`, and waits until it is in effect: commits from then on wait for those
    /// standbys. An empty text lets commits wait for none, and ends the waits there are.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Sql`] if `names` is not valid or the primary is down, else
    /// [`ServerErrorKind::Timeout`].
    ///
    /// [`ServerErrorKind::Sql`]: super::ServerErrorKind::Sql
    /// [`ServerErrorKind::Timeout`]: super::ServerErrorKind::Timeout
    pub fn synchronous(&self, names: &str) -> Result<(), ServerError> {
        const SETTING: &str = "synchronous_standby_names";
        let primary = self.primary();
        primary.alter(SETTING, names)?;
        primary.reload()?;
        primary.wait_for(&format!("show {SETTING}"), names.trim_end(), "did not take the setting")?;
        // Whether commits wait at all is a flag that the checkpointer sets when it rereads its
        // settings, which it does before a checkpoint; the first of two may have begun too early.
        primary.psql("checkpoint")?;
        primary.psql("checkpoint")?;
        Ok(())
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
