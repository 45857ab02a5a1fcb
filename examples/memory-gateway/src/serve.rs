//! `memory-gateway serve`.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, Method, header},
    middleware::from_fn,
};
use ryw_console::{Console, Recorder};
use ryw_core::wire;
use ryw_telemetry::Metrics;
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_ryw::{CookiePolicy, RywLayer, SpotCheckLayer};

use crate::{
    backend::{Backend, Via},
    config::Cli,
    console, listen,
    prometheus::Prometheus,
    routes::{App, Insight, asking, memory, operators, questions, statistics, tenant_of},
    store::Shared,
};

/// How long requests in flight may take to end after the first signal.
const DRAIN: Duration = Duration::from_secs(5);
/// What the page asks for: behind its address, where it has a token.
const BY_TOKEN: &str = " (any user name, and the token as password)";
/// How long a browser may remember what pages of other origins may do.
const PREFLIGHT: Duration = Duration::from_secs(3600);

pub(crate) async fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    // The layer first: a mistake in the environment is told before any server is started.
    RywLayer::from_env()?;
    let listener =
        TcpListener::bind(&cli.listen).await.map_err(|error| format!("can't listen on {}: {error}", cli.listen))?;
    let console = console::bind(&cli.console).await?;
    let backend = Backend::open(&cli.backend).await?;
    let insight = insight(cli, &backend)?;
    let app = app(cli, listener.local_addr()?, insight.clone());

    let (at, on) = (from_here(listener.local_addr()?), elsewhere(listener.local_addr()?));
    println!("memory-gateway listens on http://{at} ({on}{})", backend.describe());
    println!("try:  curl -X PUT -H 'X-Session-ID: me' --data hello http://{at}/v1/memory/acme/greeting");
    println!("      curl -i -H 'X-Session-ID: me' -H 'X-Consistency-Level: RYW' http://{at}/v1/memory/acme/greeting");
    let _console = match console {
        Some((listener, token)) => {
            let address = listener.local_addr()?;
            println!(
                "operators look at http://{}/ryw{}",
                from_here(address),
                if token.is_some() { BY_TOKEN } else { "" }
            );
            Some(console::serve(listener, token.as_deref(), insight)?)
        }
        None => None,
    };
    let server = listen::serve(listener, app, interrupted());
    let overdue = async {
        interrupted().await;
        tracing::info!(
            seconds = DRAIN.as_secs(),
            "shutting down: waiting for requests in flight; interrupt again to stop at once"
        );
        tokio::select! {
            () = interrupted() => {}
            () = tokio::time::sleep(DRAIN) => {}
        }
    };
    tokio::select! {
        () = server => {}
        () = overdue => tracing::warn!("requests in flight are cut short"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where this machine reaches it: no browser opens the address that stands for all of them.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn elsewhere(address: SocketAddr) -> &'static str {
    if address.ip().is_unspecified() { "on all addresses of this machine; " } else { "" }
}

/// All routes: the values inside of the layer, the operators' routes outside. What is only for administrators is not for
/// other machines.
fn app(cli: &Cli, listens_on: SocketAddr, insight: Insight) -> Router {
    let values = App { backend: insight.backend.clone(), via: Via::Request };
    let memory = memory(values.clone());
    let memory = match cli.spot_check_one_in {
        Some(reads) => memory.layer(SpotCheckLayer::one_in(reads)),
        None => memory,
    };
    let origins = &*cli.allow_origin;
    let memory = memory.layer(insight.layer.clone());
    let memory = admitting(memory, origins, [Method::GET, Method::HEAD, Method::PUT, Method::DELETE]);
    // Outside of the layer, which goes by the head of a request.
    let asking = asking(values).layer(insight.layer.clone()).layer(from_fn(questions));
    let asking = admitting(asking, origins, [Method::POST]);
    let app = memory.merge(asking).merge(admitting(operators(insight.clone()), origins, [Method::GET, Method::HEAD]));
    if !listens_on.ip().is_loopback() {
        return app;
    }
    // Nor for web pages that rebind their name to this machine.
    app.merge(Console::new(&insight.layer, &insight.recorder).guard(statistics(insight)))
}

/// The same routes, for pages of these origins as well. Outside of the layer: a preflight is no read.
fn admitting<const N: usize>(routes: Router, origins: &[HeaderValue], methods: [Method; N]) -> Router {
    if origins.is_empty() { routes } else { routes.layer(cors(origins, methods)) }
}

/// The layer, and what is seen of it.
fn insight(cli: &Cli, backend: &Backend) -> Result<Insight, Box<dyn Error>> {
    let shared = Shared::open(&cli.backend.redis)?;
    let prometheus = Prometheus::new()?;
    let meter = prometheus.meter();
    let (metrics, recorder) = (Metrics::new(&meter), Recorder::new());
    let layer = shared
        .layer(&metrics)
        .observer((metrics.clone(), recorder.clone()))
        .from_env()?
        .positions(backend.topology().clone())
        .tenant(tenant_of)
        // Served over plain http, to be tried with a browser and without certificates.
        .cookie(if cli.secure_cookie { CookiePolicy::Secure } else { CookiePolicy::InsecureForDevelopment })
        .build()?;
    metrics.watch(&layer);
    shared.watch(&meter);
    Ok(Insight { backend: backend.clone(), layer, recorder, shared, prometheus })
}

/// What pages of other origins may send and see.
fn cors<const N: usize>(origins: &[HeaderValue], methods: [Method; N]) -> CorsLayer {
    let sent = [&wire::TOKEN, &wire::SESSION_ID, &wire::CONSISTENCY_LEVEL, &wire::LOST].map(Clone::clone);
    let told =
        [&wire::TOKEN, &wire::SESSION_ID, &wire::CONSISTENCY_ENFORCED, &wire::ROUTE, &wire::LOST].map(Clone::clone);
    CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_credentials(true)
        .allow_methods(methods)
        .allow_headers(sent.into_iter().chain([header::CONTENT_TYPE]).collect::<Vec<_>>())
        .expose_headers(told.into_iter().chain([header::RETRY_AFTER]).collect::<Vec<_>>())
        .max_age(PREFLIGHT)
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
