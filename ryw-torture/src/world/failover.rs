//! How a primary is replaced, and how it comes back.

use std::time::Duration;

use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use super::{World, server_error};
use crate::{error::Error, plan::Failover};

/// For a standby to be as far as it has to be.
const DEADLINE: Duration = Duration::from_secs(30);

impl World {
    pub(super) async fn fail_over(&mut self, how: Failover) -> Result<(), Error> {
        let old = self.primary.clone();
        self.received_all_that_is_applied().await?;
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

    /// Waits until standbys have received on the primary's timeline what they have applied. One that has just changed its timeline
    /// streams the segment again from its beginning, and a PostgreSQL 15 that is promoted meanwhile finds zeros, and dies.
    async fn received_all_that_is_applied(&self) -> Result<(), Error> {
        let received = "select pg_last_wal_receive_lsn() >= pg_last_wal_replay_lsn()";
        self.until_all_say(received, "does not receive what it has applied").await
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
        let applied = format!("select pg_last_wal_replay_lsn() >= '{end}'");
        self.until_all_say(&applied, "does not catch up").await
    }

    /// Waits until each standby answers with yes.
    async fn until_all_say(&self, question: &str, failure: &str) -> Result<(), Error> {
        for standby in &self.standbys {
            let deadline = Instant::now() + DEADLINE;
            while self.psql(standby, question)? != "t" {
                if Instant::now() > deadline {
                    return Err(Error::new(format!("{standby} {failure}"), question.to_owned()));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}
