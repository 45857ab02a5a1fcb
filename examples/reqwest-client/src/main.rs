//! A command line over HTTP whose runs are one session: what one has written the next one reads, although
//! [memory-gateway](../../memory-gateway) reads from replicas that lag.
//!
//! ```text
//! cargo run -p memory-gateway -- --lag-ms 60000
//! cargo run -p reqwest-client -- --session /tmp/me put acme/greeting hello
//! cargo run -p reqwest-client -- --session /tmp/me get acme/greeting        # hello
//! cargo run -p reqwest-client -- get acme/greeting                          # nothing yet: somebody else
//! ```

mod saved;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use ryw_client::{RywClientLayer, Session, reqwest::Client};
use ryw_core::{Level, wire};

/// For one request, retries of it apart.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
struct Cli {
    /// Where memory-gateway is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,

    /// The file that the session is kept in; without it each run is a session of its own
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keeps a value, in the place TENANT/KEY
    Put { place: String, value: String },
    /// Prints the value of the place TENANT/KEY
    Get { place: String },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reqwest-client: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let saved = cli.session.as_deref().map(saved::load).transpose()?;
    let session = saved.iter().fold(Session::builder(), |session, saved| session.restore(saved)).build()?;
    let layer = RywClientLayer::new(session.clone()).level(Level::ReadYourWrites);
    let client = Client::build(Default::default(), layer)?;

    let (Command::Put { place, .. } | Command::Get { place }) = &cli.command;
    let url = format!("{}/v1/memory/{place}", cli.gateway.trim_end_matches('/'));
    let request = match &cli.command {
        Command::Put { value, .. } => client.put(url).body(value.clone()),
        Command::Get { .. } => client.get(url),
    };
    let sent = request.timeout(TIMEOUT).send().await;
    // Whatever came of it: a write without an answer may have happened, and the session knows.
    if let Some(file) = &cli.session {
        saved::store(file, &session.save())?;
    }
    let response = sent?;
    if let Some(route) = response.headers().get(&wire::ROUTE) {
        eprintln!("served by {}", route.to_str()?);
    }
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        return Err(format!("{status}: {text}").into());
    }
    if matches!(cli.command, Command::Get { .. }) {
        println!("{text}");
    }
    Ok(())
}
