//! memory-gateway: a key-value service behind `RywLayer`, on replicas that lag.
//!
//! `memory-gateway` serves; `memory-gateway demo` measures stale reads without the layer, with a time window, and
//! with positions. `--help` lists the options.

mod backend;
mod config;
mod console;
mod demo;
mod listen;
mod problem;
mod prometheus;
mod routes;
mod serve;
mod store;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use config::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    init_log();
    let result = match &cli.command {
        None | Some(Command::Serve) => serve::run(&cli).await,
        Some(Command::Demo(options)) => demo::run(&cli.backend, options).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("memory-gateway: {error}");
        ExitCode::from(2)
    })
}

/// `RUST_LOG` chooses what is logged; `info` without it.
fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
