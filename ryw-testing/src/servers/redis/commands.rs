//! What a server is asked and told.

use std::{io, time::Duration};

use super::{
    RedisServer, ServerError, ServerErrorKind,
    program::STEP,
    resp::{Connection, Failure, Reply},
    wait::Deadline,
};

impl RedisServer {
    /// Gives the server a command on a new connection, after the password if there is one, and
    /// returns the reply as `redis-cli` prints it into a pipe: the values of a list one a line,
    /// nothing for nil, and bytes that are not UTF-8 replaced. It follows no redirection.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Command`] if the server refuses the command, in its own words, or the
    /// connection; [`ServerErrorKind::Timeout`] if it does not answer.
    pub fn cli(&self, command: &[&str]) -> Result<String, ServerError> {
        self.ask(command).map(|reply| reply.lines())
    }

    /// That field of `INFO`, for example `role` or `master_repl_offset`; empty if there is none.
    ///
    /// # Errors
    ///
    /// As [`cli`](Self::cli).
    pub fn info(&self, field: &str) -> Result<String, ServerError> {
        let info = self.cli(&["INFO"])?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.unwrap_or_default().to_owned())
    }

    /// How many replicas have all that this server has written until now: waits until `replicas`
    /// have, or `limit` has passed, and returns the number there is. This is `WAIT`, which given by
    /// [`cli`](Self::cli) would not wait for what other connections wrote.
    ///
    /// # Errors
    ///
    /// As [`cli`](Self::cli).
    pub fn replicated(&self, replicas: u32, limit: Duration) -> Result<u32, ServerError> {
        let (replicas, millis) = (replicas.to_string(), limit.as_millis().max(1).to_string());
        // It waits for what was written before the connection's last command, so there has to be one.
        let commands: [&[&[u8]]; 2] = [&[b"PING"], &[b"WAIT", replicas.as_bytes(), millis.as_bytes()]];
        let reply = self.ask_all(self.home.timeout.saturating_add(limit), &commands)?;
        Ok(if let Reply::Int(count) = reply { u32::try_from(count).unwrap_or_default() } else { 0 })
    }

    /// Makes the server a replica of `master`, and waits until it is in sync and its link is up.
    /// It forgets all it had, and stays a replica when it is started again. The command
    /// `REPLICAOF NO ONE` makes it a master again.
    ///
    /// # Errors
    ///
    /// As [`cli`](Self::cli), and [`ServerErrorKind::Timeout`] if it is not in sync in time.
    pub fn replica_of(&self, master: &RedisServer) -> Result<(), ServerError> {
        let port = master.announced_port().to_string();
        if let Some(password) = &master.password {
            self.cli(&["CONFIG", "SET", "masterauth", password])?;
        }
        self.cli(&["REPLICAOF", "127.0.0.1", &port])?;
        self.cli(&["CONFIG", "REWRITE"])?;
        self.wait_for("did not become a replica", || {
            Ok(self.info("master_port")? == port && self.info("master_link_status")? == "up")
        })
    }

    pub(super) fn ask(&self, command: &[&str]) -> Result<Reply, ServerError> {
        let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
        self.ask_bytes(&words)
    }

    pub(super) fn ask_bytes(&self, command: &[&[u8]]) -> Result<Reply, ServerError> {
        self.ask_within(self.home.timeout, command)
    }

    pub(super) fn ask_within(&self, limit: Duration, command: &[&[u8]]) -> Result<Reply, ServerError> {
        self.ask_all(limit, &[command])
    }

    /// Gives all of `commands` on one connection, and returns the last reply.
    fn ask_all(&self, limit: Duration, commands: &[&[&[u8]]]) -> Result<Reply, ServerError> {
        // Zero would mean no limit at all.
        self.try_ask(limit.max(STEP), commands).map_err(|failure| {
            let last = commands.last().copied().unwrap_or_default();
            self.refused(failure, limit, last)
        })
    }

    fn try_ask(&self, limit: Duration, commands: &[&[&[u8]]]) -> Result<Reply, Failure> {
        let mut connection = Connection::open(self.port(), limit)?;
        if let Some(password) = &self.password {
            connection.command(&[b"AUTH", password.as_bytes()])?;
        }
        let mut reply = Reply::Nil;
        for command in commands {
            reply = connection.command(command)?;
        }
        Ok(reply)
    }

    fn refused(&self, failure: Failure, limit: Duration, command: &[&[u8]]) -> ServerError {
        // Its name alone: the rest may be long, or a secret.
        let command = String::from_utf8_lossy(command.first().unwrap_or(&&b""[..]));
        let name = self.name();
        match failure {
            Failure::Refused(words) => {
                ServerError::new(ServerErrorKind::Command, format!("{name} refused {command}: {words}"))
            }
            Failure::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let text = format!("{name} did not answer {command} within {limit:?}");
                ServerError::new(ServerErrorKind::Timeout, text).with_source(error)
            }
            Failure::Io(error) => {
                let text = format!("{name} cannot be asked {command}");
                ServerError::new(ServerErrorKind::Command, text).with_source(error)
            }
        }
    }

    /// Waits until `done`, which may fail meanwhile.
    pub(super) fn wait_for(
        &self,
        failure: &str,
        mut done: impl FnMut() -> Result<bool, ServerError>,
    ) -> Result<(), ServerError> {
        let deadline = Deadline::after(self.home.timeout);
        loop {
            let result = done();
            if matches!(result, Ok(true)) {
                return Ok(());
            }
            if !deadline.sleep(2 * STEP) {
                return Err(result.err().unwrap_or_else(|| self.program.timed_out(failure, deadline)));
            }
        }
    }
}
