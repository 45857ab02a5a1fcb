//! An exporter that says whether it works: spans are sent behind everybody's back, so nobody would notice.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// Writes one line when spans can't be sent, and one when they can be again.
#[derive(Debug)]
pub(crate) struct Told<E> {
    exporter: E,
    endpoint: String,
    fails: AtomicBool,
}

impl<E> Told<E> {
    pub(crate) fn new(exporter: E, endpoint: &str) -> Self {
        Self { exporter, endpoint: endpoint.to_owned(), fails: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        let endpoint = &self.endpoint;
        match (&sent, self.fails.swap(sent.is_err(), Relaxed)) {
            (Err(error), false) => {
                eprintln!("{spans} spans could not be sent to {endpoint}, is a collector there? ({error})");
            }
            (Ok(()), true) => eprintln!("spans are sent to {endpoint} again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
