//! Stopping all processes of a server where they are.

use rustix::process::{Pid, Signal};

use super::{Server, ServerError, process, server::STEP, wait::Deadline};

impl Server {
    /// Suspends all processes of the server with `SIGSTOP`, as if its machine paused, and returns
    /// when none of them moves: connections stay open and are even taken by the kernel, and nobody
    /// answers. Does nothing if the server is stopped. Linux only.
    ///
    /// [`kill`](Self::kill) ends a frozen server as it is; [`stop_fast`](Self::stop_fast) thaws it.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`] if the processes cannot be found or signalled,
    /// [`ServerErrorKind::Timeout`] if one moves on.
    ///
    /// [`ServerErrorKind::Io`]: super::ServerErrorKind::Io
    /// [`ServerErrorKind::Timeout`]: super::ServerErrorKind::Timeout
    pub fn freeze(&self) -> Result<(), ServerError> {
        let Some(postmaster) = self.postmaster() else { return Ok(()) };
        // First, and until it stands: then there are no new children, nor does one that ends free
        // its id, as nobody waits for it.
        self.suspend(&[postmaster])?;
        self.suspend(&self.children()?)
    }

    /// Ends what [`freeze`](Self::freeze) did. Does nothing if the server is not frozen.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Io`](super::ServerErrorKind::Io) if the processes cannot be found or
    /// signalled.
    pub fn thaw(&self) -> Result<(), ServerError> {
        let Some(postmaster) = self.postmaster() else { return Ok(()) };
        // Last, for the same reason that makes it the first to be frozen.
        let all = self.children()?.into_iter().chain([postmaster]);
        all.into_iter().try_for_each(|process| self.signal(process, Signal::CONT))
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.postmaster().is_some_and(process::is_frozen)
    }

    fn postmaster(&self) -> Option<Pid> {
        self.process.as_ref().map(Pid::from_child)
    }

    pub(super) fn children(&self) -> Result<Vec<Pid>, ServerError> {
        let Some(postmaster) = self.postmaster() else { return Ok(Vec::new()) };
        process::children(postmaster).map_err(|error| self.io("cannot list the processes in /proc", error))
    }

    fn suspend(&self, processes: &[Pid]) -> Result<(), ServerError> {
        processes.iter().try_for_each(|process| self.signal(*process, Signal::STOP))?;
        let deadline = Deadline::after(self.home.timeout);
        while !processes.iter().copied().all(process::stands) {
            if !deadline.sleep(STEP) {
                return Err(self.timed_out("was not frozen", deadline));
            }
        }
        Ok(())
    }

    pub(super) fn signal(&self, to: Pid, signal: Signal) -> Result<(), ServerError> {
        process::signal(to, signal).map_err(|error| self.io("cannot signal the server", error))
    }
}
