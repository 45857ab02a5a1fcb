//! The operators' page, on a listener of its own.

use std::{error::Error, future::pending, path::Path};

use axum::{Router, response::Redirect, routing::get};
use ryw_console::Console;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    config::ConsoleOptions,
    listen,
    routes::{Insight, measured, statistics},
};

/// Ends with this.
#[derive(Debug)]
pub(crate) struct Serving(JoinHandle<()>);

/// Binds the listener, and checks who is going to be let in.
pub(crate) async fn bind(options: &ConsoleOptions) -> Result<Option<(TcpListener, Option<String>)>, Box<dyn Error>> {
    let Some(address) = &options.console else { return Ok(None) };
    let token = options.console_token_file.as_deref().map(read).transpose()?;
    // Before anything is started, and before it is said that anything listens.
    token.as_deref().map(Console::check_token).transpose()?;
    let listener = TcpListener::bind(address).await.map_err(|error| format!("can't listen on {address}: {error}"))?;
    let bound = listener.local_addr()?;
    if token.is_none() && !bound.ip().is_loopback() {
        return Err(format!(
            "--console {address} could be reached from other machines: give --console-token-file as well, or an address of \
             this machine alone, such as 127.0.0.1:{}",
            bound.port()
        )
        .into());
    }
    Ok(Some((listener, token)))
}

pub(crate) fn serve(listener: TcpListener, token: Option<&str>, insight: Insight) -> Result<Serving, Box<dyn Error>> {
    let console = Console::new(&insight.layer, &insight.recorder);
    let console = match token {
        Some(token) => console.token(token)?,
        None => console,
    };
    let routes = Router::new().route("/", get(|| async { Redirect::temporary("/ryw") }));
    let routes = routes.merge(measured(insight.clone())).merge(statistics(insight));
    Ok(Serving(tokio::spawn(listen::serve(listener, console.into_router_with(routes), pending()))))
}

fn read(file: &Path) -> Result<String, Box<dyn Error>> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("can't read {}: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}
