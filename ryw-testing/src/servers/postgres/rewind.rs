//! How a primary that was replaced comes back as a standby.

use std::fs;

use super::{
    Cluster, Server, ServerError, config,
    config::{DATABASE, ROLE},
    program::STEP,
    replication::{create_slots, wait_streaming},
    startup::passes,
    wait::Deadline,
};

/// What belongs to a server itself and not to the data, though both are in one folder.
const OWN: [&str; 2] = ["postgresql.conf", "postgresql.auto.conf"];

impl Cluster {
    /// Brings `old_primary` back as a standby of `new_primary`, which was
    /// [promoted](Server::promote) in its place, and waits until it streams.
    ///
    /// What it wrote since they went different ways is undone with `pg_rewind`. If it runs, it is
    /// stopped first; if it was [killed](Server::kill), it recovers without answering anybody.
    /// Standbys that follow it are left without an upstream: see [`follow`](Self::follow).
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] if there is no server of one of the names or they are the same, [`Sql`] if
    /// the new primary is down, [`Exited`] if `pg_rewind` fails, after which the old primary may not
    /// be able to start, and as [`Server::stop_fast`] and [`Server::start`].
    ///
    /// [`InvalidConfig`]: super::ServerErrorKind::InvalidConfig
    /// [`Sql`]: super::ServerErrorKind::Sql
    /// [`Exited`]: super::ServerErrorKind::Exited
    pub fn rewind(&mut self, old_primary: &str, new_primary: &str) -> Result<(), ServerError> {
        self.rewind_through(old_primary, new_primary, self.find(new_primary)?.port())
    }

    /// Like [`rewind`](Self::rewind), after which it replicates through `port` of 127.0.0.1, where a
    /// [`Proxy`](crate::proxy::Proxy) to `new_primary` has to be. A standby that has got further than the new primary was
    /// promoted at can be brought back in the same way.
    ///
    /// # Errors
    ///
    /// As [`rewind`](Self::rewind).
    pub fn rewind_through(&mut self, old_primary: &str, new_primary: &str, port: u16) -> Result<(), ServerError> {
        self.find(old_primary)?;
        if old_primary == new_primary {
            return Err(config::invalid(format!("{old_primary:?} cannot follow itself")));
        }
        let source = self.find(new_primary)?;
        let direct = source.port();
        // Before anything else, so that the WAL needed from here on is kept.
        create_slots(source, &[old_primary])?;
        // Until its first checkpoint a promoted server's control file names the old timeline, and
        // pg_rewind would find nothing to do.
        source.psql("checkpoint")?;
        let old = self.find_mut(old_primary)?;
        old.stop_fast()?;
        old.rewind_to(direct, port)?;
        old.start()?;
        wait_streaming(self.find(new_primary)?, &[old_primary])
    }
}

impl Server {
    /// Undoes what the server at `source` has not, and makes this one its standby, by way of `port`.
    fn rewind_to(&self, source: u16, port: u16) -> Result<(), ServerError> {
        let mut own = Vec::new();
        for file in OWN.map(|name| self.data_dir.join(name)) {
            let text = fs::read_to_string(&file)
                .map_err(|error| ServerError::io(format!("cannot read {}", file.display()), error))?;
            own.push((file, text));
        }
        let result = self.run_rewind(source);
        if let Some((_, automatic)) = own.last_mut() {
            // Here, where `follow` and `reconnect` write it too. The last one of a name counts.
            automatic.push_str(&config::render(&config::upstream(self.name(), port)));
        }
        // It took the other server's.
        for (file, text) in own {
            self.home.write(&file, &text)?;
        }
        result?;
        self.home.write(&self.data_dir.join("standby.signal"), "")
    }

    fn run_rewind(&self, port: u16) -> Result<(), ServerError> {
        let deadline = Deadline::after(self.home.timeout);
        let source = format!("host=127.0.0.1 port={port} user={ROLE} dbname={DATABASE}");
        loop {
            let mut rewind = self.home.command("pg_rewind");
            rewind.arg("--target-pgdata").arg(&self.data_dir).args(["--source-server", &source, "--no-sync"]);
            match self.home.run_ok(rewind) {
                // As in `start`: it first recovers a server that was killed.
                Err(error) if passes(&error) && deadline.sleep(10 * STEP) => {}
                result => return result,
            }
        }
    }
}
