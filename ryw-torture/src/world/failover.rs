//! How a primary is replaced, and how it comes back.

use std::time::Duration;

use tokio::{task::block_in_place, time::sleep};

use super::{World, server_error};
use crate::{error::Error, plan::Failover};

impl World {
    pub(super) async fn fail_over(&mut self, how: Failover) -> Result<(), Error> {
        let old = self.primary.clone();
        match how {
            Failover::Switchover => {
                // In order: it sends all it has before it ends.
                let server = self.server_mut(&old)?;
                block_in_place(|| server.stop_fast()).map_err(server_error)?;
            }
            Failover::Crash => self.kill(&old)?,
            Failover::Lossy(cut) => {
                self.links.cut(&old);
                sleep(cut).await;
                self.kill(&old)?;
            }
        }
        self.links.destroy(&old);
        let heir = self.heir()?;
        let server = self.server(&heir)?;
        block_in_place(|| server.promote()).map_err(server_error)?;
        let others = std::mem::take(&mut self.standbys).into_iter().filter(|name| *name != heir);
        self.standbys = std::iter::once(old.clone()).chain(others).collect();
        self.primary = heir.clone();
        self.links.heal();
        for standby in self.standbys.clone().into_iter().filter(|name| *name != old) {
            let port = self.link(&heir, &standby)?;
            block_in_place(|| self.cluster.follow_through(&standby, &heir, port)).map_err(server_error)?;
        }
        let port = self.link(&heir, &old)?;
        block_in_place(|| self.cluster.rewind_through(&old, &heir, port)).map_err(server_error)
    }

    pub(super) fn kill(&mut self, name: &str) -> Result<(), Error> {
        let server = self.server_mut(name)?;
        block_in_place(|| server.kill()).map_err(server_error)
    }

    /// The standby that has received most, as whoever fails over for real would choose: others can follow it.
    fn heir(&self) -> Result<String, Error> {
        let mut received = Vec::new();
        for standby in &self.standbys {
            let end = "select greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'";
            let end: u64 = self.psql(standby, end)?.parse().map_err(Error::with("a position"))?;
            received.push((end, standby.clone()));
        }
        let (_, heir) = received.into_iter().max().ok_or_else(|| Error::new("failover", "there is no standby"))?;
        Ok(heir)
    }

    /// Waits until all standbys have applied what the primary has now.
    pub(crate) async fn caught_up(&self) -> Result<(), Error> {
        let end = self.psql(&self.primary, "select pg_current_wal_flush_lsn()")?;
        for standby in &self.standbys {
            let applied = format!("select pg_last_wal_replay_lsn() >= '{end}'");
            let mut tries = 0;
            while self.psql(standby, &applied)? != "t" {
                tries += 1;
                if tries > 600 {
                    return Err(Error::new(format!("{standby} does not catch up"), format!("with {end}")));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}
