use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use super::{Server, ServerError, config};

/// A copy of a server's data directory, made by [`Server::save`].
///
/// It is in the cluster's folder, and takes as much room as the directory did. It is removed when
/// this is dropped, or else with the cluster.
#[derive(Debug)]
#[must_use = "the copy is removed when this is dropped"]
pub struct Backup {
    server: String,
    folder: PathBuf,
}

impl Drop for Backup {
    fn drop(&mut self) {
        // What is left goes with the cluster's folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    /// Copies the data directory aside. The server is stopped meanwhile, and then runs again if it
    /// ran before. One that was [killed](Self::kill) recovers first.
    ///
    /// # Errors
    ///
    /// As [`stop_fast`](Self::stop_fast) and [`start`](Self::start), and
    /// [`ServerErrorKind::Exited`](super::ServerErrorKind::Exited) if it cannot be copied.
    pub fn save(&mut self) -> Result<Backup, ServerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let ran = self.is_running();
        self.settle()?;
        let count = COUNT.fetch_add(1, Relaxed);
        let folder = self.home.folder().join(format!("{}.backup-{count}", self.name()));
        // Before the copying: what is there of it when that fails is removed too.
        let backup = Backup { server: self.name().to_owned(), folder };
        self.copy(&self.data_dir, &backup.folder)?;
        if ran {
            self.start()?;
        }
        Ok(backup)
    }

    /// Puts the data directory back to what it was at [`save`](Self::save), and starts the server,
    /// on the port it has: to its clients it is the same server, which suddenly knows less.
    ///
    /// A standby then catches up as far as its upstream still has the WAL, of which a cluster keeps
    /// 64 MB. Stop the upstream, or [cut it off](super::Cluster::reconnect), to see it as it was.
    /// A primary does not get back what its standbys know.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::InvalidConfig`] if the copy is of another server, as
    /// [`stop_fast`](Self::stop_fast) and [`start`](Self::start), and [`ServerErrorKind::Io`] or
    /// [`ServerErrorKind::Exited`] if the directory cannot be replaced.
    ///
    /// [`ServerErrorKind::Exited`]: super::ServerErrorKind::Exited
    /// [`ServerErrorKind::InvalidConfig`]: super::ServerErrorKind::InvalidConfig
    /// [`ServerErrorKind::Io`]: super::ServerErrorKind::Io
    pub fn restore(&mut self, backup: &Backup) -> Result<(), ServerError> {
        let Backup { server, folder } = backup;
        if !folder.starts_with(self.home.folder()) || *server != self.name() {
            return Err(config::invalid(format!("the backup is not of {}, but of another {server}", self.name())));
        }
        self.settle()?;
        fs::remove_dir_all(&self.data_dir)
            .map_err(|error| self.program.io("cannot remove the data directory", error))?;
        self.copy(folder, &self.data_dir)?;
        self.start()
    }

    /// Stops the server such that nothing of it is left, not even of one that was killed: its last
    /// children may still be writing and its shared memory is there, both of which a start sees to.
    fn settle(&mut self) -> Result<(), ServerError> {
        if !self.is_running() && self.data_dir.join("postmaster.pid").exists() {
            self.start()?;
        }
        self.stop_fast()
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), ServerError> {
        let mut copy = self.home.command("cp");
        copy.arg("-R").arg(from).arg(to);
        self.home.run_ok(copy)
    }
}
