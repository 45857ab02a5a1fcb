//! A request writes a note and starts a job; the job reads the note a moment later, when no replica has it. The job carries
//! an [`Envelope`](ryw_client::Envelope), so its worker sees what the request has written. Jobs about the same note are one
//! job, which sees what all of them have to see.
//!
//! ```text
//! cargo run -p job-queue
//! curl -X PUT -H 'X-Session-ID: me' -d hello http://127.0.0.1:8080/notes/greeting
//! curl http://127.0.0.1:8080/index/greeting      # what the job has read: hello
//! ```
//!
//! With `--drop-envelopes` the job reads what a replica has: nothing.

mod notes;
mod queue;
mod worker;

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use queue::Queue;
use tokio::net::TcpListener;
use worker::{Index, Worker};

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// How late replicas are on average, in ms
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    lag_ms: u64,

    /// Start jobs without envelopes, to see what is missing then
    #[arg(long)]
    drop_envelopes: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let listener = TcpListener::bind(cli.listen).await?;
    let address = listener.local_addr()?;
    let (queue, index) = (Arc::new(Queue::new()), Index::default());
    let routes = notes::routes(Duration::from_millis(cli.lag_ms), Arc::clone(&queue), index.clone())?;
    let worker = Worker { queue, index, service: format!("http://{address}"), drop_envelopes: cli.drop_envelopes };
    println!("job-queue listens on http://{address}");
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("{error}");
        }
    };
    // The worker ends with the server.
    tokio::select! {
        ended = axum::serve(listener, routes).with_graceful_shutdown(interrupted).into_future() => ended?,
        () = worker.run() => {}
    }
    Ok(())
}
