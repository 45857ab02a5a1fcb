//! Runs a real service on real servers, breaks them, and checks what its clients saw.
//!
//! `ryw-torture` alone starts everything: a PostgreSQL primary with two standbys, a Redis, three instances of a small service
//! behind the real layer, and proxies between them. Sessions of all kinds and levels drive it while a plan, made from a seed,
//! kills, freezes, delays, cuts off and promotes. What every session saw is written down, and `ryw-check` judges it.
//! `ryw-torture --target URL` drives a service of yours, without faults.

mod error;
mod finals;
mod history;
mod load;
mod plan;
mod report;
mod run;
mod sample;
mod service;
mod timeline;
mod verdict;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ryw_check::Verdict;

/// Run a real service on real servers, break them, and check what its clients saw.
///
/// Exits with 0 when the run is clean, 1 when a promise was broken, 2 when it could not be made, 3 when it is void: nothing
/// was broken, but a floor was not reached, or the positive control was not caught.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One instance of the service under test
    #[command(hide = true)]
    Serve(service::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        Some(Command::Serve(options)) => service::serve(options).await.map(|()| Verdict::Clean),
        None => run::run(&cli.run).await,
    };
    match ended {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            eprintln!("ryw-torture: {error}");
            ExitCode::from(2)
        }
    }
}
