//! The program of one server, from its start to its end, whatever it serves.

use std::{
    io,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};

use super::{ServerError, ServerErrorKind, log::Log, process, wait::Deadline};

/// Between two looks at a server.
pub(super) const STEP: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Program {
    name: String,
    log: Log,
    process: Option<Child>,
    timeout: Duration,
}

impl Program {
    /// Not yet started. Waits end after `timeout`.
    pub(super) fn new(name: &str, log: PathBuf, timeout: Duration) -> Self {
        Self { name: name.to_owned(), log: Log::new(log), process: None, timeout }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.exited().is_ok_and(|exited| exited.is_none()) && self.process.is_some()
    }

    pub(super) fn log(&self) -> String {
        self.log.since_start()
    }

    pub(super) fn log_tail(&self) -> String {
        self.log.tail()
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// Starts the process, without waiting for anything.
    pub(super) fn launch(
        &mut self,
        mut command: Command,
        cannot_spawn: impl FnOnce(&Command, io::Error) -> ServerError,
    ) -> Result<(), ServerError> {
        let (stdout, stderr) = self
            .log
            .start()
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|error| self.io("cannot write the server's log", error))?;
        command.stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        self.process = Some(command.spawn().map_err(|error| cannot_spawn(&command, error))?);
        Ok(())
    }

    /// A step of waiting until a server is ready, which has been told to listen on `port`.
    pub(super) fn not_ready_yet(&mut self, port: u16, deadline: Deadline) -> Result<(), ServerError> {
        if let Some(status) = self.exited()? {
            self.process = None;
            return Err(self.gave_up(status, port));
        }
        if deadline.sleep(STEP) { Ok(()) } else { Err(self.timed_out("was not ready", deadline)) }
    }

    fn gave_up(&self, status: ExitStatus, port: u16) -> ServerError {
        let (kind, text) = if self.log.since_start().contains("Address already in use") {
            (ServerErrorKind::PortTaken, format!("cannot listen on port {port}"))
        } else {
            (ServerErrorKind::Exited, format!("gave up with {status}"))
        };
        ServerError::new(kind, format!("{} {text}", self.name)).with_log(self.log_tail())
    }

    /// Ends it by `signal`. Does nothing if it is stopped.
    pub(super) fn stop(&mut self, signal: Signal) -> Result<(), ServerError> {
        let deadline = self.deadline();
        let runs = self.exited()?.is_none();
        if let Some(process) = self.main_process().filter(|_| runs) {
            // Not waited for yet, so the id cannot have become another process's.
            self.signal(process, signal)?;
            // In case it is frozen. After the signal, so that it takes nothing new.
            if self.is_frozen() {
                self.thaw()?;
            }
        }
        while self.process.is_some() && self.exited()?.is_none() {
            if !deadline.sleep(STEP) {
                return Err(self.timed_out("did not stop", deadline));
            }
        }
        self.process = None;
        Ok(())
    }

    /// Kills it, and its children where `with_children`. Does nothing if it is stopped.
    pub(super) fn kill(&mut self, with_children: bool) -> Result<(), ServerError> {
        // Found before, as they lose their parent; killed after, as it could make another.
        let children = if with_children { self.children()? } else { Vec::new() };
        if let Some(mut process) = self.process.take() {
            process.kill().and_then(|()| process.wait()).map_err(|error| self.io("cannot kill the server", error))?;
        }
        children.into_iter().try_for_each(|child| self.signal(child, Signal::KILL))
    }

    /// Suspends all processes, and returns when none of them moves. Does nothing if it is stopped.
    pub(super) fn freeze(&self) -> Result<(), ServerError> {
        let Some(process) = self.main_process() else { return Ok(()) };
        // First, and until it stands: then there are no new children, nor does one that ends free
        // its id, as nobody waits for it.
        self.suspend(&[process])?;
        self.suspend(&self.children()?)
    }

    /// Ends what [`freeze`](Self::freeze) did.
    pub(super) fn thaw(&self) -> Result<(), ServerError> {
        let Some(process) = self.main_process() else { return Ok(()) };
        // Last, for the same reason that makes it the first to be frozen.
        self.children()?.into_iter().chain([process]).try_for_each(|process| self.signal(process, Signal::CONT))
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.main_process().is_some_and(process::is_frozen)
    }

    /// How it has ended; a process that nobody waits for looks alive to others.
    pub(super) fn exited(&mut self) -> Result<Option<ExitStatus>, ServerError> {
        match &mut self.process {
            Some(process) => process.try_wait().map_err(|error| self.io("cannot wait for the server", error)),
            None => Ok(None),
        }
    }

    pub(super) fn timed_out(&self, what: &str, deadline: Deadline) -> ServerError {
        let text = format!("{} {what} within {:?}", self.name, deadline.limit());
        ServerError::new(ServerErrorKind::Timeout, text).with_log(self.log_tail())
    }

    pub(super) fn io(&self, what: &str, error: io::Error) -> ServerError {
        ServerError::io(format!("{}: {what}", self.name), error).with_log(self.log_tail())
    }

    fn main_process(&self) -> Option<Pid> {
        self.process.as_ref().map(Pid::from_child)
    }

    fn children(&self) -> Result<Vec<Pid>, ServerError> {
        let Some(process) = self.main_process() else { return Ok(Vec::new()) };
        process::children(process).map_err(|error| self.io("cannot list the processes in /proc", error))
    }

    fn suspend(&self, processes: &[Pid]) -> Result<(), ServerError> {
        processes.iter().try_for_each(|process| self.signal(*process, Signal::STOP))?;
        let deadline = self.deadline();
        while !processes.iter().copied().all(process::stands) {
            if !deadline.sleep(STEP) {
                return Err(self.timed_out("was not frozen", deadline));
            }
        }
        Ok(())
    }

    fn signal(&self, to: Pid, signal: Signal) -> Result<(), ServerError> {
        process::signal(to, signal).map_err(|error| self.io("cannot signal the server", error))
    }
}
