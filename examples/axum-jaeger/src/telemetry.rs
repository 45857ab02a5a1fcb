//! Spans of `tracing`, sent by OTLP.

use std::error::Error;

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::told::Told;

/// Starts to send spans to `otlp`, and to log to standard error what `RUST_LOG` asks for (warnings by default).
pub(crate) fn start(service: &'static str, otlp: &str) -> Result<SdkTracerProvider, Box<dyn Error>> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(otlp).build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Told::new(exporter, otlp))
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    // Spans of the exporter's own connection would be exported in their turn.
    let wanted = EnvFilter::new("off,axum_jaeger=info,tower_ryw=info");
    let logged = EnvFilter::builder().with_default_directive(tracing::Level::WARN.into()).from_env_lossy();
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(logged);
    tracing_subscriber::registry().with(spans.with_filter(wanted)).with(log).try_init()?;
    Ok(provider)
}
