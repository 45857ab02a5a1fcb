//! A mark store that is measured.

use std::{fmt, future::Future};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use ryw_core::{
    Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use tokio::time::Instant;

/// A mark store whose answers are measured, see [`Metrics::store`](crate::Metrics::store). An answer that is there at once
/// costs a look at the clock; one that takes its time costs no more allocations than the store's own, and one.
#[derive(Clone)]
pub struct MeasuredStore<S> {
    store: S,
    latency: Histogram<f64>,
    errors: Counter<u64>,
}

impl<S> MeasuredStore<S> {
    pub(crate) const fn new(store: S, latency: Histogram<f64>, errors: Counter<u64>) -> Self {
        Self { store, latency, errors }
    }

    /// The store itself.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.store
    }

    fn measured<T: Unpin + Send + 'static>(
        &self,
        operation: &'static str,
        ask: impl FnOnce(&S) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        let asked = Asked {
            operation,
            since: Instant::now(),
            latency: self.latency.clone(),
            errors: self.errors.clone(),
            is_over: false,
        };
        match ask(&self.store).now() {
            Ok(answer) => match asked.answered(answer) {
                Ok(answer) => StoreFuture::ready(answer),
                Err(error) => StoreFuture::failed(error),
            },
            Err(answer) => StoreFuture::boxed(asked.until(answer)),
        }
    }
}

impl<S: MarkStore> MarkStore for MeasuredStore<S> {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        self.measured("load", |store| store.load(keys))
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        self.measured("join", |store| store.join(keys, update))
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        self.measured("settle", |store| store.settle(unsettled, at))
    }

    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        self.measured("acknowledge", |store| store.acknowledge(keys, told))
    }
}

/// One question. Dropped before its answer, it was given up: whoever asked has a deadline.
struct Asked {
    operation: &'static str,
    since: Instant,
    latency: Histogram<f64>,
    errors: Counter<u64>,
    is_over: bool,
}

impl Asked {
    async fn until<T>(self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answer = answer.await;
        self.answered(answer)
    }

    fn answered<T>(mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.is_over = true;
        self.latency.record(self.since.elapsed().as_secs_f64(), &[KeyValue::new("operation", self.operation)]);
        answer.inspect_err(|error| self.failed(word(error.kind())))
    }

    fn failed(&self, kind: &'static str) {
        self.errors.add(1, &[KeyValue::new("operation", self.operation), KeyValue::new("kind", kind)]);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_over {
            self.failed("given-up");
        }
    }
}

const fn word(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Timeout => "timeout",
        StoreErrorKind::Unavailable => "unavailable",
        StoreErrorKind::Corrupt => "corrupt",
        StoreErrorKind::TooFewCopies => "too-few-copies",
        _ => "other",
    }
}

impl<S: fmt::Debug> fmt::Debug for MeasuredStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasuredStore").field("store", &self.store).finish_non_exhaustive()
    }
}
