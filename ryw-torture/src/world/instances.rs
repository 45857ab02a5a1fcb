//! The instances of the service: processes of this program.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::error::Error;

/// For an instance to answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// One instance, running or not. Killed when this is dropped, and it ends by itself when this process does.
#[derive(Debug)]
pub(crate) struct Instance {
    port: u16,
    arguments: Vec<String>,
    /// How many seconds its wall clock is ahead.
    clock_ahead: i64,
    log: PathBuf,
    process: Option<Child>,
}

impl Instance {
    /// Not yet started; `arguments` are those of `serve`, without where to listen.
    pub(crate) async fn new(number: usize, arguments: Vec<String>, folder: &Path) -> Result<Self, Error> {
        // Free now, and nobody else on this machine is likely to be given it in the next moment.
        let port = TcpListener::bind(("127.0.0.1", 0)).await.and_then(|listener| listener.local_addr());
        let port = port.map_err(Error::with("no free port"))?.port();
        let log = folder.join(format!("instance-{number}.log"));
        Ok(Self { port, arguments, clock_ahead: 0, log, process: None })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the process and waits until it listens.
    pub(crate) async fn start(&mut self) -> Result<(), Error> {
        self.launch()?;
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended =
                self.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|ended| ended.is_some()));
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it says nothing").to_owned();
                return Err(Error::new(format!("an instance does not start, see {}", self.log.display()), last));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Starts the process, without waiting for anything.
    pub(crate) fn launch(&mut self) -> Result<(), Error> {
        let cannot = Error::with("can't start an instance");
        let log = File::options().append(true).create(true).open(&self.log);
        let started = log.and_then(|log| {
            Command::new(std::env::current_exe()?)
                .arg("serve")
                .args(["--listen", &format!("127.0.0.1:{}", self.port)])
                .arg(format!("--clock-ahead={}", self.clock_ahead))
                .args(&self.arguments)
                .stdin(Stdio::piped())
                .stdout(log.try_clone()?)
                .stderr(log)
                .kill_on_drop(true)
                // Ctrl-C is for the process that started it.
                .process_group(0)
                .spawn()
        });
        self.process = Some(started.map_err(cannot)?);
        Ok(())
    }

    /// Its wall clock is wrong by so much from its next start on.
    pub(crate) fn set_clock(&mut self, seconds_ahead: i64) {
        self.clock_ahead = seconds_ahead;
    }

    /// As a crash would.
    pub(crate) async fn kill(&mut self) -> Result<(), Error> {
        match self.process.take() {
            Some(mut process) => process.kill().await.map_err(Error::with("can't kill an instance")),
            None => Ok(()),
        }
    }
}
