//! The binary, as a shell would start it.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// For whatever must come: far beyond what it takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What a run that came to its end has left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary with these arguments, in an environment that sets nothing of its own. It ends with its handle.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memory-gateway"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "RYW_PG_BIN"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn finish(mut command: Command) -> Finished {
    let output = timeout(DEADLINE, command.output()).await.expect("it ends").expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
