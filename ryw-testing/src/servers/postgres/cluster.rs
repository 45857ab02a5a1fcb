use std::{iter, path::Path, sync::Arc};

use super::{ClusterBuilder, Server, ServerError, config, config::PRIMARY, home::Home, supervisor::Supervisor};

/// A primary and its standbys, with the temporary folder they live in.
///
/// Dropping it ends the servers at once and removes the folder, which takes some tens of
/// milliseconds. The same happens if this process panics, exits, or is killed: see the
/// [module](super).
#[derive(Debug)]
pub struct Cluster {
    primary: Server,
    standbys: Vec<Server>,
    home: Arc<Home>,
    // Last, since fields are dropped in order: it removes what the servers' fields still name.
    supervisor: Supervisor,
}

impl Cluster {
    /// A builder for a cluster of one primary.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Servers that have names, ports and places, and nothing in these.
    pub(super) fn plan<'a>(
        names: impl Iterator<Item = &'a str>,
        home: Home,
        supervisor: Supervisor,
    ) -> Result<Self, ServerError> {
        let home = Arc::new(home);
        Ok(Self {
            primary: Server::new(PRIMARY, &home)?,
            standbys: names.map(|name| Server::new(name, &home)).collect::<Result<_, _>>()?,
            home,
            supervisor,
        })
    }

    /// The server that was started as primary. It stays this one after
    /// [`promote`](Server::promote) of another.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.primary
    }

    /// Like [`primary`](Self::primary), to stop, kill or start it.
    pub fn primary_mut(&mut self) -> &mut Server {
        &mut self.primary
    }

    /// The servers that were started as standbys, in the order of the builder.
    #[must_use]
    pub fn standbys(&self) -> &[Server] {
        &self.standbys
    }

    /// Like [`standbys`](Self::standbys), to stop, kill or start them.
    pub fn standbys_mut(&mut self) -> &mut [Server] {
        &mut self.standbys
    }

    /// The server of that name; the primary's name is `primary`.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        iter::once(&self.primary).chain(&self.standbys).find(|server| server.name() == name)
    }

    /// Like [`server`](Self::server), to stop, kill or start it.
    pub fn server_mut(&mut self, name: &str) -> Option<&mut Server> {
        iter::once(&mut self.primary).chain(&mut self.standbys).find(|server| server.name() == name)
    }

    /// The temporary folder: `NAME` is a server's data directory, `NAME.log` its log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.folder()
    }

    pub(super) fn find(&self, name: &str) -> Result<&Server, ServerError> {
        self.server(name).ok_or_else(|| unknown(name))
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Result<&mut Server, ServerError> {
        self.server_mut(name).ok_or_else(|| unknown(name))
    }

    pub(super) fn home(&self) -> &Arc<Home> {
        &self.home
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut servers: Vec<_> = iter::once(&mut self.primary).chain(&mut self.standbys).collect();
        self.supervisor.release(|| {
            for server in &mut servers {
                let _ = server.program.exited();
            }
        });
        // Nothing is left to stop unless somebody killed the supervisor.
        for server in servers {
            if server.stop_fast().is_err() {
                let _ = server.kill();
            }
        }
    }
}

fn unknown(name: &str) -> ServerError {
    config::invalid(format!("there is no server {name:?}"))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    #[test]
    fn a_cluster_can_be_shared_between_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Cluster>();
    }

    #[test]
    fn dropping_cleans_up_even_without_the_supervisor() {
        let cluster = Cluster::builder().start().unwrap();
        let folder = cluster.folder().to_owned();
        let postmaster = format!("/proc/{}", cluster.primary.pid().unwrap());
        let supervisor = Pid::from_raw(cluster.supervisor.group()).unwrap();
        kill_process(supervisor, Signal::KILL).unwrap();
        assert!(Path::new(&postmaster).exists());

        drop(cluster);

        assert!(!folder.exists());
        assert!(!Path::new(&postmaster).exists());
    }
}
