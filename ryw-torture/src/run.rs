//! One run, from its start to its verdict.

use std::{collections::BTreeMap, convert::Infallible, path::PathBuf, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ryw_check::Verdict;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, timeout},
};

use crate::{
    error::Error,
    finals,
    load::{Load, Settings},
    plan::{Fault, plan},
    report,
    sample::Sampler,
    service::UNGATED,
    timeline,
    verdict::{Limits, judge},
    world::{World, inject},
};

/// How often it is looked at how things are going.
const TICK: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where histories, logs, the summary and the picture go
    #[arg(long, value_name = "FOLDER", default_value = "torture")]
    out: PathBuf,
    /// The same seed is the same plan of faults [default: a new one]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How long, in seconds, about; longer where the failovers take longer, some 6 s each
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// How many failovers there are to be
    #[arg(long, value_name = "N", default_value_t = 6)]
    failovers: u32,
    /// Sessions, with two tabs each
    #[arg(long, value_name = "N", default_value_t = 24)]
    sessions: usize,
    /// How many requests of a thousand clients cut short
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=1000))]
    cancelled: u32,
    /// Also have sessions at STRONG: they are not told of the loss of what they have only read, which is a violation
    #[arg(long)]
    strong: bool,
    /// Also write down, in history.answers, which instance each answer came from and what it said about its route
    #[arg(long)]
    answers: bool,
    /// Send all sessions past the layer, to see what the run finds then
    #[arg(long, conflicts_with = "target")]
    bypass: bool,
    /// Drive the service at this URL, without faults; repeatable for several instances
    #[arg(long, value_name = "URL", conflicts_with = "failovers", value_parser = target)]
    target: Vec<String>,
    /// With --target: the beginning of paths that are not behind the layer, for the positive control
    #[arg(long, value_name = "PATH", requires = "target")]
    ungated: Option<String>,
    #[command(flatten)]
    limits: Limits,
}

/// A fault that was injected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected {
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

pub(crate) async fn run(options: &Options) -> Result<Verdict, Error> {
    std::fs::create_dir_all(&options.out).map_err(Error::with("can't make the folder"))?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut interrupted = signal(SignalKind::terminate()).map_err(Error::with("signals"))?;
    let interrupted = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    // Dropped when a signal comes first, and with it everything that it has started.
    tokio::select! {
        ended = tortured(options, seed) => ended,
        () = interrupted => Err(Error::new("interrupted", "what was started is ended")),
    }
}

async fn tortured(options: &Options, seed: u64) -> Result<Verdict, Error> {
    if !options.target.is_empty() {
        return observed(options, seed, &mut None).await;
    }
    let mut world = Some(World::start(&options.out).await?);
    let ended = observed(options, seed, &mut world).await;
    if let Some(world) = &world {
        world.keep_logs(&options.out);
    }
    ended
}

async fn observed(options: &Options, seed: u64, world: &mut Option<World>) -> Result<Verdict, Error> {
    let mut targets = world.as_ref().map_or_else(|| options.target.clone(), World::urls);
    if options.bypass {
        targets.iter_mut().for_each(|target| target.push_str(UNGATED));
    }
    let settings = Settings {
        seed,
        sessions: options.sessions,
        ungated: if world.is_some() && !options.bypass { Some(UNGATED.to_owned()) } else { options.ungated.clone() },
        targets,
        cancelled: options.cancelled,
        strong: options.strong,
        answers: options.answers,
    };
    let controlled = settings.ungated.is_some();
    let length = Duration::from_secs(options.seconds);
    let faults = if world.is_some() { plan(seed, length, options.failovers) } else { Vec::new() };
    let written: Vec<String> = faults.iter().map(|fault| format!("{fault}\n")).collect();
    std::fs::write(options.out.join("plan.txt"), written.concat()).map_err(Error::with("can't write the plan"))?;

    let start = Instant::now();
    let mut load = Load::start(settings, &options.out)?;
    let sampler = Sampler::start(world.as_ref().map(World::nodes).unwrap_or_default(), load.shared().clone());
    let mut injected = Vec::new();
    let bar = progress_bar(length);
    tokio::select! {
        broken = broken(world.as_mut(), &faults, length, &load, start, &mut injected) => broken?,
        never = shown(&load, &bar, start) => match never {},
    }
    bar.finish_and_clear();
    load.stop().await;
    let took = start.elapsed();
    let samples = sampler.samples();
    drop(sampler);

    let shared = load.shared();
    let unread = match world {
        Some(world) => {
            world.settle().await?;
            finals::read(&world.nodes(), &shared.history, &shared.control).await?;
            0
        }
        None => load.read_finals().await,
    };
    shared.history.finish()?;
    shared.control.finish()?;
    let sums = shared.stats.sums();
    let failovers = injected.iter().filter(|injected| matches!(injected.fault, Fault::Failover(_))).count() as u64;
    let judged = judge(&options.out, &options.limits, &sums, failovers, unread, controlled)?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    injected.iter().for_each(|injected| *counts.entry(injected.fault.name()).or_default() += 1);
    let summary = report::Summary { seed, took, judged: &judged, sums: &sums, faults: &counts };
    summary.print();
    summary.write(&options.out)?;
    let picture = timeline::draw(&samples, &injected, took);
    std::fs::write(options.out.join("timeline.svg"), picture).map_err(Error::with("can't write the picture"))?;
    println!("written to {}", options.out.display());
    Ok(match load.found() {
        Some(found) => {
            println!("the check that goes along stopped the run: {found}");
            Verdict::Violated
        }
        None => judged.verdict,
    })
}

/// Does what the plan says, or lets the time pass where there is none. What was broken is whole again when this ends, also where
/// something was found before.
async fn broken(
    world: Option<&mut World>,
    faults: &[Fault],
    length: Duration,
    load: &Load,
    start: Instant,
    injected: &mut Vec<Injected>,
) -> Result<(), Error> {
    // For all sessions to have begun.
    pass(load, Duration::from_secs(1)).await;
    if let Some(world) = world {
        for fault in faults {
            if load.found().is_some() {
                return Ok(());
            }
            let from = start.elapsed();
            inject(world, *fault).await.map_err(|error| Error::new(format!("during {fault}"), error))?;
            injected.push(Injected { fault: *fault, from, until: start.elapsed() });
        }
    }
    pass(load, length.saturating_sub(start.elapsed())).await;
    // For everybody to be told of what the last one lost.
    pass(load, Duration::from_secs(2)).await;
    Ok(())
}

/// Lets time pass until something is found.
async fn pass(load: &Load, time: Duration) {
    let found = async {
        let mut ticks = interval(TICK);
        while load.found().is_none() {
            ticks.tick().await;
        }
    };
    // The time being over is no failure.
    let _ = timeout(time, found).await;
}

/// Shows how far it is.
async fn shown(load: &Load, bar: &ProgressBar, start: Instant) -> Infallible {
    let mut ticks = interval(TICK);
    let mut before = (0, start);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let (ops, sums) = (load.shared().history.len(), load.shared().stats.sums());
        if now.duration_since(before.1) > Duration::from_secs(1) {
            let rate = (ops - before.0) as f64 / now.duration_since(before.1).as_secs_f64();
            bar.set_message(format!("{ops} operations, {rate:.0}/s, {} told of losses", sums.resets));
            before = (ops, now);
        }
        bar.set_position(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
    }
}

/// Where a service is, without a slash at the end.
fn target(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|error| format!("{error}: write it as http://HOST:PORT"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write it as http://HOST:PORT".to_owned()),
    }
}

fn progress_bar(length: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_target_is_a_whole_url() {
        assert_eq!(target("http://127.0.0.1:8080/").as_deref(), Ok("http://127.0.0.1:8080"));
        for bad in ["foo", "foo:80", "/path", "ftp://foo", "http://", "http://a b", ""] {
            assert!(target(bad).is_err_and(|error| error.contains("http://HOST:PORT")), "{bad}");
        }
    }
}
