//! What traces cost a request, in the same run, interleaved:
//!
//! `cargo run --release -p ryw-bench --bin traces`
//!
//! * without a subscriber: nobody has ever asked for a span;
//! * a subscriber that wants other targets only: it is asked once for each kind of span, and the answer is kept;
//! * a subscriber that takes every span and does nothing with it.
//!
//! A subscriber that once was is remembered by the callsites, so the first is measured before, and again beside, the others.

use std::{convert::Infallible, error::Error, hint::black_box, time::Duration};

use http::{Request, Response};
use ryw_bench::report::Spread;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ryw::RywLayer;
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    dispatcher::with_default,
    span::{Attributes, Id, Record},
    subscriber::NoSubscriber,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Requests in a round, and rounds of each kind.
const REQUESTS: u32 = 2000;
const ROUNDS: usize = 400;

/// Wants spans of this target, or all; keeps none.
#[derive(Debug)]
struct Takes(Option<&'static str>);

impl Subscriber for Takes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.is_none_or(|target| metadata.target() == target)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!(
        "## Traces\n\nA read of a session that has not written, on one thread; ns per request, median of {ROUNDS} rounds.\n"
    );
    let alone = Spread::of((0..ROUNDS).map(|_| round(&runtime)).collect::<Outcome<_>>()?).median;
    println!("Before any subscriber: {alone:.0} ns.\n");

    let kinds = [
        ("none", Dispatch::new(NoSubscriber::default())),
        ("of other targets", Dispatch::new(Takes(Some("somebody else's")))),
        ("takes every span", Dispatch::new(Takes(None))),
    ];
    let mut times: Vec<_> = kinds.iter().map(|_| Vec::with_capacity(ROUNDS)).collect();
    for _ in 0..ROUNDS {
        for ((_, subscriber), times) in kinds.iter().zip(&mut times) {
            times.push(with_default(subscriber, || round(&runtime))?);
        }
    }
    println!("| subscriber | ns | ratio |\n|---|---:|---:|");
    let medians: Vec<_> = times.into_iter().map(|times| Spread::of(times).median).collect();
    for ((name, _), median) in kinds.iter().zip(&medians) {
        println!("| {name} | {median:.0} | {:.2} |", median / medians[0]);
    }
    Ok(())
}

/// Nanoseconds per request.
fn round(runtime: &tokio::runtime::Runtime) -> Outcome<f64> {
    runtime.block_on(async {
        let layer = RywLayer::builder().build()?;
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
        let mut service = layer.layer(inner);
        let mut total = Duration::ZERO;
        for _ in 0..REQUESTS {
            let request = Request::get("/").header("x-session-id", "bench").body(())?;
            let started = Instant::now();
            black_box(service.ready().await?.call(request).await?);
            total += started.elapsed();
        }
        Ok(total.as_nanos() as f64 / f64::from(REQUESTS))
    })
}
