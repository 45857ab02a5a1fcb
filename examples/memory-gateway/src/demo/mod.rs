//! `memory-gateway demo`: the same load three ways at the same time, and what each let through.

mod load;
mod oracle;
mod table;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use indicatif::{ProgressBar, ProgressStyle};
use ryw_core::{Key, Keyring};
use tokio::time::Instant;
use tower_ryw::{Ladder, RywLayer};

use crate::{
    backend::{Backend, Via},
    config::{BackendOptions, DemoOptions},
    routes::{App, memory, tenant_of},
};
use load::{Load, Report};
use oracle::Oracle;

/// The window that tower-ryw is compared with.
const WINDOW: Duration = Duration::from_secs(2);
/// How long tower-ryw may wait for a replica, and so how long the oracle may.
const PATIENCE: Duration = Duration::from_millis(10);
/// Three ways to choose who serves a read.
const NAMES: [&str; 3] = ["no layer", "2 s window", "tower-ryw"];

/// What the demo proved, as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Stale reads without the layer, none with it.
    Clean,
    /// tower-ryw let a stale read through.
    Violated,
    /// Too few chances to see a stale read, or the load ran into errors.
    Void,
}

pub(crate) async fn run(backend: &BackendOptions, options: &DemoOptions) -> Result<ExitCode, Box<dyn Error>> {
    let backend = Backend::open(backend).await?;
    let duration = Duration::from_secs(options.seconds.into());
    println!(
        "{}; {} sessions each way write a value, read it back at once and a few times more, for {} s",
        backend.describe(),
        options.sessions,
        options.seconds
    );
    let Measured { reports, ideal } = measure(&backend, options.sessions, duration).await?;
    table::print(&reports, ideal);

    let [naive, _, ours] = &reports;
    let errors: u64 = reports.iter().map(|report| report.errors).sum();
    let verdict = match (ours.stale(), naive.stale()) {
        (1.., _) => Verdict::Violated,
        (0, stale) if stale < options.min_stale || errors > 0 || ours.reads.is_empty() => Verdict::Void,
        _ => Verdict::Clean,
    };
    println!("{}", verdict.explain(options.min_stale, errors));
    Ok(ExitCode::from(verdict.code()))
}

/// What each contender let through, in the order of [`NAMES`].
#[derive(Debug)]
struct Measured {
    reports: [Report; 3],
    /// The share of tower-ryw's reads that an oracle would have sent to replicas.
    ideal: Option<f64>,
}

async fn measure(backend: &Backend, sessions: u16, duration: Duration) -> Result<Measured, Box<dyn Error>> {
    let keys = Keyring::new(Key::random()?);
    let services = contenders(backend, &keys)?;
    let oracle = Oracle::start(backend).await?;
    let progress = progress_bar(duration);
    let [naive, window, ours] = std::array::from_fn(|index| {
        let load = Load { service: services[index].clone(), space: NAMES[index], keys: keys.clone() };
        tokio::spawn(load.drive(sessions, duration, progress.clone()))
    });
    let reports = [naive.await?, window.await?, ours.await?];
    progress.finish_and_clear();
    let ideal = oracle.stop().await.share_for_replicas(&reports[2].reads, PATIENCE);
    Ok(Measured { reports, ideal })
}

/// No layer, a time window, positions: over the same backend.
fn contenders(backend: &Backend, keys: &Keyring) -> Result<[Router; 3], Box<dyn Error>> {
    let app = |via| App { backend: backend.clone(), via };
    let window = RywLayer::builder().window(WINDOW).tenant(tenant_of).primary_budget(usize::MAX).build()?;
    let positions = RywLayer::builder()
        .positions(backend.topology().clone())
        .signing_keys(keys.clone())
        .tenant(tenant_of)
        .ladder(Ladder::new().wait(PATIENCE))
        .primary_budget(usize::MAX)
        .build()?;
    Ok([
        memory(app(Via::RoundRobin)),
        memory(app(Via::Request)).layer(window),
        memory(app(Via::Request)).layer(positions),
    ])
}

fn progress_bar(duration: Duration) -> Arc<ProgressBar> {
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    let bar = Arc::new(bar);
    let ticking = Arc::clone(&bar);
    let started = Instant::now();
    tokio::spawn(async move {
        while started.elapsed() < duration && !ticking.is_finished() {
            ticking.set_position(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    bar
}

impl Verdict {
    const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Violated => 1,
            Self::Void => 3,
        }
    }

    fn explain(self, floor: u64, errors: u64) -> String {
        match self {
            Self::Clean => "clean: stale without the layer, never stale with tower-ryw".into(),
            Self::Violated => "VIOLATED: tower-ryw let a stale read through".into(),
            Self::Void if errors > 0 => format!("void: {errors} requests failed, so the run proves nothing"),
            Self::Void => format!(
                "void: fewer than {floor} stale reads without the layer, so the run proves nothing; more lag (--lag-ms, where \
                 the replicas are the demo's own) or more time (--seconds) would"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use ryw_testing::lagging::LaggingStore;

    use super::*;

    /// On a paused clock nothing is late but what should be, so what is compared is the guess whether a wait is worth a
    /// try. It runs for so long that chance stays well below what is tolerated.
    #[tokio::test(start_paused = true)]
    async fn comes_within_one_percent_of_the_oracle_and_is_never_stale() {
        for lag in [5, 50, 150, 500] {
            let lag = Duration::from_millis(lag);
            let backend = Backend::Embedded(LaggingStore::builder().replicas(2).lag(lag).start());
            let Measured { reports: [naive, _, ours], ideal } =
                measure(&backend, 16, Duration::from_secs(45)).await.unwrap();
            assert!(naive.stale() > 150, "chances to see a stale read at {lag:?}: {}", naive.stale());
            assert_eq!((ours.stale(), ours.errors), (0, 0), "{lag:?}");
            let (ideal, ours) = (ideal.unwrap(), table::by_replicas(&ours.reads).unwrap());
            assert!((ideal - ours).abs() <= 0.01, "{lag:?}: oracle {ideal:.4}, tower-ryw {ours:.4}");
        }
    }
}
