//! What a run amounts to.

use std::{fs::File, io::BufReader, path::Path};

use ryw_check::{Fault, Floors, Loader, Options, Report, Verdict, check};

use crate::{
    error::Error,
    load::{BOUND, Sums},
};

/// The least that a run has to have had for its silence to mean something.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Limits {
    /// Void with fewer operations
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_ops: u64,
    /// Void with fewer operations per second
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = Floors::parse_rate)]
    min_rate: f64,
    /// Void with fewer reads that a naive router could have served stale
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_temptations: u64,
    /// Void with fewer failovers
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_failovers: u64,
    /// Void with fewer answers that told of a loss
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_resets: u64,
    /// Void when replicas served a smaller share of reads, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = Floors::parse_share)]
    min_replica_share: f64,
    /// Void when a larger share of answers promised nothing, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = Floors::parse_share)]
    max_unpromised: f64,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Result {
    pub(crate) verdict: Verdict,
    pub(crate) report: Report,
    /// Of the positive control.
    pub(crate) caught: Option<usize>,
    pub(crate) missed: Vec<String>,
}

/// Reads the histories in `folder` and judges them.
pub(crate) fn judge(
    folder: &Path,
    limits: &Limits,
    sums: &Sums,
    failovers: u64,
    unread: u64,
    controlled: bool,
) -> std::result::Result<Result, Error> {
    let report = checked(&folder.join("history.jsonl"))?;
    let fault = |name: &str, count, floor| Fault { name: name.to_owned(), count, floor };
    let mut floors = Floors { temptations: limits.min_temptations, rate: limits.min_rate, ..Floors::default() };
    floors.faults = vec![fault("failover", failovers, limits.min_failovers)];
    let mut missed = floors.missed(&report);
    if !sums.is_answered() {
        missed.push("answers: nobody had one that was a success".to_owned());
    }
    if unread > 0 {
        missed.push(format!("final states: {unread} keys could not be read"));
    }
    let ops = report.ops as u64;
    if ops < limits.min_ops {
        missed.push(format!("operations: {ops} of {}", limits.min_ops));
    }
    if sums.resets < limits.min_resets {
        missed.push(format!("losses told: {} of {}", sums.resets, limits.min_resets));
    }
    let (share, least) = (sums.replica_share(), limits.min_replica_share);
    if share < least {
        missed.push(format!("replica share: {share:.3} of {least:.3}"));
    }
    let (share, most) = (sums.unpromised_share(), limits.max_unpromised);
    if share > most {
        missed.push(format!("share of answers that promised nothing: {share:.3}, at most {most:.3}"));
    }
    let caught = controlled.then(|| checked(&folder.join("control.jsonl"))).transpose()?;
    let caught = caught.map(|report| report.violations.len());
    if caught == Some(0) {
        missed.push("the positive control: nothing was found where the layer was not".to_owned());
    }
    let verdict = match (report.violations.is_empty(), missed.is_empty()) {
        (false, _) => Verdict::Violated,
        (true, true) => Verdict::Clean,
        (true, false) => Verdict::Void,
    };
    Ok(Result { verdict, report, caught, missed })
}

fn checked(path: &Path) -> std::result::Result<Report, Error> {
    let unusable = || format!("the history {}", path.display());
    let file = File::open(path).map_err(|error| Error::new(unusable(), error))?;
    let mut loader = Loader::default();
    loader.read(&path.display().to_string(), BufReader::new(file)).map_err(|error| Error::new(unusable(), error))?;
    let history = loader.finish().map_err(|error| Error::new(unusable(), error))?;
    let mut options = Options::default();
    options.max_staleness = u64::try_from(BOUND.as_nanos()).ok();
    options.strict = true;
    Ok(check(&history, &options))
}
