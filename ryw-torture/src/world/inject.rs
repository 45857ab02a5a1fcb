//! Doing what the plan says.

use std::time::Duration;

use ryw_testing::proxy::{Direction, Proxy};
use tokio::{task::block_in_place, time::sleep};

use super::{Instance, World, server_error};
use crate::{error::Error, plan::Fault};

/// Between two faults, so that most of them meet a system that had a moment to recover.
const REST: Duration = Duration::from_millis(200);

/// Lets it go wrong, and makes it whole again.
pub(crate) async fn inject(world: &mut World, fault: Fault) -> Result<(), Error> {
    match fault {
        Fault::Failover(how) => world.fail_over(how).await?,
        Fault::Lag { standby, delay, hold } => {
            let link = world.replication(standby)?;
            link.delay(Direction::ToClient, delay);
            sleep(hold).await;
            link.heal();
        }
        Fault::CutReplication { standby, hold } => {
            let link = world.replication(standby)?;
            link.black_hole(Direction::Both);
            sleep(hold).await;
            link.heal();
        }
        Fault::ApplyDelay { standby, delay, hold } => {
            let name = world.standby(standby)?.to_owned();
            world.apply_delay(&name, delay)?;
            sleep(hold).await;
            world.apply_delay(&name, Duration::ZERO)?;
        }
        Fault::PauseReplay { standby, hold } => {
            let name = world.standby(standby)?.to_owned();
            world.psql(&name, "select pg_wal_replay_pause()")?;
            sleep(hold).await;
            world.psql(&name, "select pg_wal_replay_resume()")?;
        }
        Fault::KillStandby { standby, hold } => {
            let name = world.standby(standby)?.to_owned();
            world.crash(&name, hold).await?;
        }
        Fault::KillPrimary { hold } => {
            let name = world.primary.clone();
            world.crash(&name, hold).await?;
        }
        Fault::FreezeStandby { standby, hold } => {
            let server = world.server(world.standby(standby)?)?;
            block_in_place(|| server.freeze()).map_err(server_error)?;
            sleep(hold).await;
            block_in_place(|| server.thaw()).map_err(server_error)?;
        }
        Fault::KillInstance { instance, hold } => {
            let instance = world.instance(instance)?;
            instance.kill().await?;
            sleep(hold).await;
            instance.start().await?;
        }
        Fault::SkewClock { instance, seconds } => {
            let instance = world.instance(instance)?;
            instance.kill().await?;
            instance.set_clock(seconds);
            instance.start().await?;
        }
        Fault::CutStore { hold } => cut([&world.to_redis], hold).await,
        Fault::CutDatabase { hold } => cut(&world.to_servers, hold).await,
        Fault::Flush => world.redis(&["FLUSHALL"])?,
        Fault::KillStore { hold } => {
            block_in_place(|| world.redis.kill()).map_err(server_error)?;
            sleep(hold).await;
            block_in_place(|| world.redis.start()).map_err(server_error)?;
        }
        Fault::FreezeStore { hold } => {
            block_in_place(|| world.redis.freeze()).map_err(server_error)?;
            sleep(hold).await;
            block_in_place(|| world.redis.thaw()).map_err(server_error)?;
        }
        Fault::Evict { hold } => {
            world.redis(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "1mb"])?;
            sleep(hold).await;
            world.redis(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0"])?;
        }
    }
    sleep(REST).await;
    Ok(())
}

/// A partition: nothing is lost, it is only late.
async fn cut(proxies: impl IntoIterator<Item = &Proxy> + Clone, hold: Duration) {
    proxies.clone().into_iter().for_each(|proxy| proxy.black_hole(Direction::Both));
    sleep(hold).await;
    proxies.into_iter().for_each(Proxy::heal);
}

impl World {
    fn standby(&self, number: usize) -> Result<&str, Error> {
        let name = self.standbys.get(number).ok_or_else(|| Error::new("no such standby", number.to_string()))?;
        Ok(name)
    }

    fn instance(&mut self, number: usize) -> Result<&mut Instance, Error> {
        self.instances.get_mut(number).ok_or_else(|| Error::new("no such instance", number.to_string()))
    }

    fn replication(&self, standby: usize) -> Result<&Proxy, Error> {
        let standby = self.standby(standby)?;
        self.links.get(&self.primary, standby).ok_or_else(|| Error::new("no link to", standby.to_owned()))
    }

    fn apply_delay(&self, name: &str, delay: Duration) -> Result<(), Error> {
        self.psql(name, &format!("alter system set recovery_min_apply_delay = '{}ms'", delay.as_millis()))?;
        self.psql(name, "select pg_reload_conf()").map(drop)
    }

    async fn crash(&mut self, name: &str, hold: Duration) -> Result<(), Error> {
        self.kill(name)?;
        sleep(hold).await;
        let server = self.server_mut(name)?;
        block_in_place(|| server.start()).map_err(server_error)
    }

    fn redis(&self, command: &[&str]) -> Result<(), Error> {
        block_in_place(|| self.redis.cli(command)).map_err(server_error).map(drop)
    }
}
