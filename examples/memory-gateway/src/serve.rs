//! `memory-gateway serve`.

use std::{error::Error, future::IntoFuture, net::SocketAddr, process::ExitCode, time::Duration};

use axum::{
    Router,
    http::{HeaderValue, Method, header},
    middleware::from_fn,
};
use ryw_console::Recorder;
use ryw_core::wire;
use ryw_telemetry::Metrics;
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_ryw::{CookiePolicy, RywLayer, SpotCheckLayer};

use crate::{
    backend::{Backend, Via},
    config::Cli,
    console,
    prometheus::Prometheus,
    routes::{App, Insight, asking, memory, operators, questions, statistics, tenant_of},
    store::Shared,
};

/// How long requests in flight may take to end after the first signal.
const DRAIN: Duration = Duration::from_secs(5);
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

    println!("memory-gateway listens on http://{} ({})", listener.local_addr()?, backend.describe());
    println!(
        "try:  curl -X PUT -H 'X-Session-ID: me' --data hello http://{}/v1/memory/acme/greeting",
        listener.local_addr()?
    );
    println!(
        "      curl -i -H 'X-Session-ID: me' -H 'X-Consistency-Level: RYW' http://{}/v1/memory/acme/greeting",
        listener.local_addr()?
    );
    let _console = match console {
        Some((listener, token)) => {
            println!("operators look at http://{}/ryw", listener.local_addr()?);
            Some(console::serve(listener, token.as_deref(), insight)?)
        }
        None => None,
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(interrupted()).into_future();
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
        ended = server => ended?,
        () = overdue => tracing::warn!("requests in flight are cut short"),
    }
    Ok(ExitCode::SUCCESS)
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
    if listens_on.ip().is_loopback() { app.merge(statistics(insight)) } else { app }
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
