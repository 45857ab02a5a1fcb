//! Stopping all processes of a server where they are, by way of Linux's `/proc`.

use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

use super::{Server, ServerError, server::STEP, wait::Deadline};

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
        self.postmaster().and_then(stat).is_some_and(|stat| stat.state == 'T')
    }

    fn postmaster(&self) -> Option<Pid> {
        self.process.as_ref().map(Pid::from_child)
    }

    pub(super) fn children(&self) -> Result<Vec<Pid>, ServerError> {
        let processes = fs::read_dir("/proc").map_err(|error| self.io("cannot list the processes in /proc", error))?;
        let own = self.postmaster();
        Ok(processes
            .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
            .filter(|process| own.is_some() && stat(*process).is_some_and(|stat| stat.parent == own))
            .collect())
    }

    fn suspend(&self, processes: &[Pid]) -> Result<(), ServerError> {
        processes.iter().try_for_each(|process| self.signal(*process, Signal::STOP))?;
        let deadline = Deadline::after(self.home.timeout);
        while !processes.iter().all(|process| stands(*process)) {
            if !deadline.sleep(STEP) {
                return Err(self.timed_out("was not frozen", deadline));
            }
        }
        Ok(())
    }

    pub(super) fn signal(&self, process: Pid, signal: Signal) -> Result<(), ServerError> {
        match kill_process(process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(self.io("cannot signal the server", io::Error::from(error))),
        }
    }
}

/// Whether it does nothing any more, be it suspended or dead.
fn stands(process: Pid) -> bool {
    stat(process).is_none_or(|stat| "TZX".contains(stat.state))
}

struct Stat {
    state: char,
    parent: Option<Pid>,
}

fn stat(process: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// `ID (NAME) STATE PARENT ...`, where a name may have anything in it.
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, parent: Pid::from_raw(fields.next()?.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        for (text, expected) in [
            ("7 (postgres) S 5 5 5 0", Some(('S', 5))),
            ("7 (a b) R 9) T 12 5 5 0", Some(('T', 12))),
            ("7 (postgres) S", None),
            ("", None),
        ] {
            let stat = parse(text).map(|stat| (stat.state, stat.parent.map_or(0, Pid::as_raw_pid)));
            assert_eq!(stat, expected, "{text:?}");
        }
    }
}
