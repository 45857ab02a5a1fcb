//! A gRPC service over replicas that lag, and a client whose runs are one session: the same names as over HTTP, as metadata.
//!
//! ```text
//! cargo run -p grpc-notes -- serve
//! cargo run -p grpc-notes -- --session /tmp/me put greeting hello
//! cargo run -p grpc-notes -- --session /tmp/me get greeting        # hello
//! cargo run -p grpc-notes -- get greeting                          # not found yet: somebody else
//! ```
//!
//! `src/pb.rs` is what `tonic-prost-build` makes of `proto/notes.proto`, kept here so that building needs no `protoc`.

mod client;
mod server;

#[allow(unreachable_pub, unused_qualifications, clippy::pedantic, reason = "generated")]
#[rustfmt::skip]
mod pb;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    /// Where the service is
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    service: String,

    /// The file that the session is kept in; without it each run is a session of its own
    #[arg(long, global = true, value_name = "FILE")]
    session: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keeps notes, on replicas that lag
    Serve {
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
        listen: SocketAddr,
        /// How late replicas are on average, in ms
        #[arg(long, value_name = "MS", default_value_t = 10_000)]
        lag_ms: u64,
    },
    /// Keeps a text under a name
    Put { name: String, text: String },
    /// Prints the text under a name
    Get { name: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { service, session, command } = Cli::parse();
    let ran = match command {
        Command::Serve { listen, lag_ms } => server::run(listen, lag_ms).await,
        Command::Put { name, text } => client::put(service, session, name, text).await,
        Command::Get { name } => client::get(service, session, name).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grpc-notes: {error}");
            ExitCode::FAILURE
        }
    }
}
