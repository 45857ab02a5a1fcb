//! The command: reads histories, prints violations and a summary, exits with the verdict.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    process::ExitCode,
};

use clap::Parser;
use ryw_check::{Fault, Floors, InputError, Loader, MAX_LINE, Options, Problem, Report, Verdict, check};

/// Check recorded histories for read-your-writes and the other session guarantees.
///
/// Exits with 0 when the history is clean, 1 when a promise was broken, 2 when the input can't be used, 3 when the run is
/// void: nothing was broken, but a floor was not reached.
#[derive(Debug, Parser)]
#[command(name = "ryw-check", version)]
struct Args {
    /// Histories as JSON lines, parts of one run; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Print JSON, an object a line.
    #[arg(long)]
    json: bool,
    /// The bound of BOUNDED reads, in milliseconds.
    #[arg(long, value_name = "MS")]
    max_staleness: Option<u64>,
    /// Hold sessions to writes of unknown outcome that survived, from their return on.
    #[arg(long)]
    strict: bool,
    /// Void with fewer reads that a naive router could have served stale.
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_temptations: u64,
    /// Void with a smaller share of reads served by replicas, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = Floors::parse_share)]
    min_replica_share: f64,
    /// Void with fewer operations per second.
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = Floors::parse_rate)]
    min_rate: f64,
    /// How often a fault was injected. Of the same fault, counts are added up.
    #[arg(long, value_name = "NAME=COUNT", value_parser = counted)]
    fault: Vec<(String, u64)>,
    /// Void when this fault was injected less often.
    #[arg(long, value_name = "NAME=COUNT", value_parser = counted)]
    min_fault: Vec<(String, u64)>,
    /// The most bytes of a line.
    #[arg(long, value_name = "BYTES", default_value_t = MAX_LINE)]
    max_line: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(message) => {
            eprintln!("ryw-check: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<Verdict, String> {
    let mut loader = Loader::default().max_line(args.max_line);
    for file in &args.files {
        read(&mut loader, file).map_err(|error| with_sources(&error))?;
    }
    let history = loader.finish().map_err(|error| with_sources(&error))?;
    if history.needs_bound() && args.max_staleness.is_none() {
        return Err("field `level`: some reads are BOUNDED; say the bound with --max-staleness".to_owned());
    }
    let mut options = Options::default();
    options.max_staleness = args.max_staleness.map(|ms| ms.saturating_mul(1_000_000));
    options.strict = args.strict;
    let report = check(&history, &options);
    let floors = floors(args);
    let verdict = floors.verdict(&report);
    let missed = floors.missed(&report);
    print(args.json, &report, &missed, verdict).map_err(|error| format!("can't write: {error}"))?;
    Ok(verdict)
}

fn read(loader: &mut Loader, name: &str) -> Result<(), InputError> {
    if name == "-" {
        return loader.read("-", io::stdin().lock());
    }
    let file = File::open(name).map_err(|error| InputError {
        file: name.to_owned(),
        line: 0,
        column: 0,
        problem: Problem::Read(error),
    })?;
    loader.read(name, BufReader::with_capacity(1 << 18, file))
}

fn with_sources(error: &InputError) -> String {
    match &error.problem {
        Problem::Read(source) => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

fn floors(args: &Args) -> Floors {
    let injected = |name: &str| {
        let counts = args.fault.iter().filter(|(fault, _)| fault == name).map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    };
    let fault = |(name, floor): &(String, u64)| Fault { name: name.clone(), count: injected(name), floor: *floor };
    Floors {
        temptations: args.min_temptations,
        replica_share: args.min_replica_share,
        rate: args.min_rate,
        faults: args.min_fault.iter().map(fault).collect(),
    }
}

fn counted(text: &str) -> Result<(String, u64), String> {
    let (name, count) = text.split_once('=').ok_or("write it as NAME=COUNT")?;
    let count = count.parse().map_err(|error| format!("the count of {name}: {error}"))?;
    Ok((name.to_owned(), count))
}

fn print(json: bool, report: &Report, missed: &[String], verdict: Verdict) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (ops, violations, temptations) = (report.ops, report.violations.len(), report.temptations);
    if json {
        for violation in &report.violations {
            let (session, why) = (quoted(&violation.session)?, quoted(&violation.why)?);
            let ids = serde_json::to_string(&violation.ops)?;
            writeln!(out, r#"{{"kind":"{}","session":{session},"ops":{ids},"why":{why}}}"#, violation.kind)?;
        }
        for floor in missed {
            eprintln!("below the floor: {floor}");
        }
        let verdict = verdict.as_str();
        writeln!(
            out,
            r#"{{"ops":{ops},"violations":{violations},"temptations":{temptations},"verdict":"{verdict}"}}"#
        )?;
    } else {
        for violation in &report.violations {
            writeln!(
                out,
                "{} session {:?} ops {:?}: {}",
                violation.kind, violation.session, violation.ops, violation.why
            )?;
        }
        for floor in missed {
            writeln!(out, "below the floor: {floor}")?;
        }
        let (share, rate) = (report.replica_share, report.rate);
        writeln!(
            out,
            "{}: {ops} operations ({rate:.0}/s), {violations} violations, {temptations} temptations, replica share {share:.3}",
            verdict.as_str()
        )?;
    }
    out.flush()
}

fn quoted(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?)
}
