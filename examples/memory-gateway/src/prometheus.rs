//! What is measured, as Prometheus text.

use std::{error::Error, sync::Arc};

use ::prometheus::{Registry, TextEncoder};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use ryw_telemetry::opentelemetry::metrics::{Meter, MeterProvider};

/// Cheap to clone. Measuring ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Prometheus {
    provider: Arc<SdkMeterProvider>,
    registry: Registry,
}

impl Prometheus {
    /// Metrics get the names that their instruments have, and no further ones.
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
        let exporter = exporter.without_units().without_counter_suffixes().without_target_info().build()?;
        let provider = Arc::new(SdkMeterProvider::builder().with_reader(exporter).build());
        Ok(Self { provider, registry })
    }

    pub(crate) fn meter(&self) -> Meter {
        self.provider.meter("memory-gateway")
    }

    pub(crate) fn text(&self) -> Result<String, ::prometheus::Error> {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
