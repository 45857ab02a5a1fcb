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
use load::Load;
use oracle::Oracle;

/// The window that tower-ryw is compared with.
const WINDOW: Duration = Duration::from_secs(2);

/// One way to choose who serves a read.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) service: Router,
}

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
    let ladder = Ladder::new();
    let keys = Keyring::new(Key::random()?);
    let contenders = contenders(&backend, &keys, ladder)?;
    let oracle = Oracle::start(&backend).await?;

    let progress = progress_bar(duration);
    let loads = contenders.iter().map(|contender| {
        let load = Load { service: contender.service.clone(), space: contender.name, keys: keys.clone() };
        tokio::spawn(load.drive(options.sessions, duration, progress.clone()))
    });
    let loads: Vec<_> = loads.collect();
    let mut reports = Vec::new();
    for (contender, load) in contenders.iter().zip(loads) {
        reports.push((contender.name, load.await?));
    }
    progress.finish_and_clear();
    let timelines = oracle.stop().await;

    let (_, ours) = &reports[2];
    let ideal = timelines.share_for_replicas(&ours.reads, ladder_wait());
    table::print(&reports, ideal);

    let naive = &reports[0].1;
    let errors: u64 = reports.iter().map(|(_, report)| report.errors).sum();
    let verdict = match (ours.stale(), naive.stale()) {
        (1.., _) => Verdict::Violated,
        (0, stale) if stale < options.min_stale || errors > 0 || ours.reads.is_empty() => Verdict::Void,
        _ => Verdict::Clean,
    };
    println!("{}", verdict.explain(options.min_stale, errors));
    Ok(ExitCode::from(verdict.code()))
}

fn ladder_wait() -> Duration {
    Duration::from_millis(10)
}

/// No layer, a time window, positions: over the same backend.
fn contenders(backend: &Backend, keys: &Keyring, ladder: Ladder) -> Result<[Contender; 3], Box<dyn Error>> {
    let app = |via| App { backend: backend.clone(), via };
    let window = RywLayer::builder().window(WINDOW).tenant(tenant_of).primary_budget(usize::MAX).build()?;
    let positions = RywLayer::builder()
        .positions(backend.topology().clone())
        .signing_keys(keys.clone())
        .tenant(tenant_of)
        .ladder(ladder.wait(ladder_wait()))
        .primary_budget(usize::MAX)
        .build()?;
    Ok([
        Contender { name: "no layer", service: memory(app(Via::RoundRobin)) },
        Contender { name: "2 s window", service: memory(app(Via::Request)).layer(window) },
        Contender { name: "tower-ryw", service: memory(app(Via::Request)).layer(positions) },
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
                "void: fewer than {floor} stale reads without the layer, so the run proves nothing; more lag (--lag-ms) or more \
                 time (--seconds) would"
            ),
        }
    }
}
