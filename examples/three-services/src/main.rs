//! A chain of services, a → b → c: what a session has written at c it reads through b and a, with no code in the handlers.
//! The level is CAUSAL, and each service's client carries what the request that is being served must see.
//!
//! ```text
//! cargo run -p three-services -- c
//! cargo run -p three-services -- b
//! cargo run -p three-services -- a
//! curl -si -X PUT -d hello http://127.0.0.1:8083/greeting | grep -i ryw-token        # written at c
//! curl -H 'Ryw-Token: …' http://127.0.0.1:8081/greeting                              # read through a and b: hello
//! curl http://127.0.0.1:8081/greeting                                                # somebody else: not there yet
//! ```

mod forward;
mod notes;

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::Router;
use clap::{Args, Parser, Subcommand};
use ryw_core::Keyring;
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Hands requests on to b
    A {
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8082")]
        next: String,
        #[command(flatten)]
        options: Forwarding,
    },
    /// Hands requests on to c
    B {
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
        listen: SocketAddr,
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8083")]
        next: String,
        #[command(flatten)]
        options: Forwarding,
    },
    /// Keeps notes, on replicas that lag
    C {
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
        listen: SocketAddr,
        /// How late replicas are on average, in ms
        #[arg(long, value_name = "MS", default_value_t = 10_000)]
        lag_ms: u64,
    },
}

#[derive(Args, Debug)]
struct Forwarding {
    /// Call the next service with a client that carries nothing, to see what is missing then
    #[arg(long)]
    carry_nothing: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = keys()?;
    match Cli::parse().service {
        Service::A { listen, next, options } => serve("a", listen, forward::routes(&keys, &next, &options)?).await,
        Service::B { listen, next, options } => serve("b", listen, forward::routes(&keys, &next, &options)?).await,
        Service::C { listen, lag_ms } => serve("c", listen, notes::routes(&keys, Duration::from_millis(lag_ms))?).await,
    }
}

/// Services that understand each other's tokens have the same keys. Not these, outside of an example.
fn keys() -> Result<Keyring, Box<dyn Error>> {
    let keys = std::env::var("RYW_TOKEN_KEY");
    Ok(Keyring::parse(keys.as_deref().unwrap_or("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))?)
}

async fn serve(name: &str, listen: SocketAddr, routes: Router) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    println!("{name} listens on http://{}", listener.local_addr()?);
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("{error}");
        }
    };
    axum::serve(listener, routes).with_graceful_shutdown(interrupted).await?;
    Ok(())
}
