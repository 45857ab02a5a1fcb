//! A service of notes over replicas that are 200 ms late, and a service in front of it. One request to the front writes a note and
//! reads it back; the trace shows both services, the mark, and where the read went and why.
//!
//! ```text
//! docker run --rm -p 127.0.0.1:16686:16686 -p 127.0.0.1:4317:4317 jaegertracing/jaeger:2.1.0
//! cargo run -p axum-jaeger -- notes
//! cargo run -p axum-jaeger -- front
//! curl -i -X POST -H 'X-Session-ID: me' -d 'hello' http://127.0.0.1:8080/greeting
//! ```
//!
//! Then <http://localhost:16686>, service `front`. Where no collector is, each service says so once.

mod front;
mod notes;
mod propagation;
mod telemetry;
mod told;

use std::{error::Error, net::SocketAddr};

use axum::{Router, middleware::from_fn};
use clap::{Parser, Subcommand};
use ryw_core::Keyring;
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
struct Cli {
    /// Where spans are sent by OTLP over gRPC
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:4317")]
    otlp: String,

    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Keeps notes, on replicas that lag
    Notes {
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
    },
    /// Writes a note through the other service, and reads it back
    Front {
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,

        /// Where the other service is
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
        notes: String,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let (name, listen) = match &cli.service {
        Service::Notes { listen } => ("notes", listen),
        Service::Front { listen, .. } => ("front", listen),
    };
    let traces = telemetry::start(name, &cli.otlp)?;
    let routes = match &cli.service {
        Service::Notes { .. } => notes::routes(&keys()?)?,
        Service::Front { notes, .. } => front::routes(&keys()?, notes)?,
    };
    serve(name, *listen, routes.layer(from_fn(propagation::server_span))).await?;
    // What has not been sent yet.
    traces.shutdown()?;
    Ok(())
}

/// Services that understand each other's tokens have the same keys. Not these, outside of an example.
fn keys() -> Result<Keyring, Box<dyn Error>> {
    let keys = std::env::var("RYW_TOKEN_KEY");
    Ok(Keyring::parse(keys.as_deref().unwrap_or("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))?)
}

async fn serve(name: &str, listen: SocketAddr, routes: Router) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    println!("{name} listens on http://{}", listener.local_addr()?);
    axum::serve(listener, routes).with_graceful_shutdown(interrupted()).await?;
    Ok(())
}

/// Ctrl-C, or the signal that ends services.
async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
