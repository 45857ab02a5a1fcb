//! Runs the simulation over many seeds, and fails where a promise was broken or the runs prove too little.
//!
//! ```text
//! simulate [--first 1] [--seeds 1000] [--history FILE] [--answers FILE]
//! ```

use std::{
    collections::BTreeMap, fs, io, io::IsTerminal, ops::ControlFlow, path::PathBuf, process::ExitCode,
    thread::available_parallelism, time::Duration,
};

use clap::Parser;
use ryw_simulation::{Outcome, many};
use tokio::time::Instant;

/// The real layer and client over a simulated network, database and mark store.
#[derive(Parser)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many threads. Default: one for each processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Where to write the history of the last seed, for `ryw-check`.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Where to write what went wrong with the last seed, and what every answer has said.
    #[arg(long)]
    answers: Option<PathBuf>,
}

/// What a thousand seeds must have had for their silence to mean something; fewer seeds in proportion.
const OPERATIONS: u64 = 1_000_000;
const TEMPTATIONS: u64 = 20_000;
const FAILOVERS: u64 = 500;
const REPLICA_SHARE: f64 = 0.15;

fn main() -> ExitCode {
    run(Args::parse()).unwrap_or_else(|error| {
        eprintln!("simulate: {error}");
        ExitCode::from(2)
    })
}

fn run(args: Args) -> io::Result<ExitCode> {
    let Args { first, seeds, threads, history, answers } = args;
    let threads = threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let began = Instant::now();
    let mut total = Total::default();
    let mut last = None;
    let end = first.saturating_add(seeds);
    many(first..end, None, threads, |seed, outcome| {
        total.add(seed, &outcome);
        if let Some(outcome) = outcome.ok().filter(|_| seed + 1 == end) {
            last = Some((outcome.history, outcome.answers));
        }
        if io::stdout().is_terminal() && total.runs.is_multiple_of(25) {
            eprint!("\r{} of {seeds}", total.runs);
        }
        ControlFlow::Continue(())
    });
    if let Some((seen, said)) = last {
        for (path, text) in [(history, seen), (answers, said)] {
            let Some(path) = path else { continue };
            fs::write(&path, text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        }
    }
    total.print(began.elapsed());
    Ok(ExitCode::from(total.verdict(seeds)))
}

#[derive(Default)]
struct Total {
    runs: u64,
    ops: u64,
    temptations: u64,
    share: f64,
    faults: BTreeMap<&'static str, u64>,
    red: u64,
    /// Of all histories, in whichever order they end.
    hash: u64,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: &Result<Outcome, String>) {
        self.runs += 1;
        let again = format!("again: cargo run --release -p ryw-simulation --bin simulate -- --first {seed} --seeds 1");
        match outcome {
            Ok(run) => {
                self.ops += run.ops;
                self.hash ^= run.hash.rotate_left((seed % 64) as u32);
                self.temptations += run.temptations;
                self.share += run.replica_share;
                for (fault, count) in &run.faults {
                    *self.faults.entry(fault).or_default() += count;
                }
                if run.violations.is_empty() && run.control_was_caught {
                    return;
                }
                self.red += 1;
                println!("seed {seed} is red (history {:016x}); {again}", run.hash);
                if !run.control_was_caught {
                    println!("  void: the session without a guard saw nothing stale");
                }
                for violation in run.violations.iter().take(5) {
                    println!("  {} {} {:?}: {}", violation.kind, violation.session, violation.ops, violation.why);
                }
            }
            Err(error) => {
                self.red += 1;
                println!("seed {seed} is broken: {error}; {again}");
            }
        }
    }

    fn failovers(&self) -> u64 {
        ["failover", "failover with loss"].iter().filter_map(|fault| self.faults.get(fault)).sum()
    }

    fn replica_share(&self) -> f64 {
        self.share / self.runs.max(1) as f64
    }

    fn print(&self, took: Duration) {
        println!(
            "{} seeds in {:.0} s: {} operations, {} temptations, {} failovers, {:.0} % of reads by replicas; {} red",
            self.runs,
            took.as_secs_f64(),
            self.ops,
            self.temptations,
            self.failovers(),
            100.0 * self.replica_share(),
            self.red
        );
        let faults: Vec<String> = self.faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
        println!("{}", faults.join(", "));
        println!("histories {:016x}", self.hash);
    }

    /// As `ryw-check` has them: 0 clean, 1 violated, 3 void.
    fn verdict(&self, seeds: u64) -> u8 {
        if self.red > 0 {
            return 1;
        }
        let share = |of_thousand: u64| of_thousand * seeds / 1000;
        let mut code = 0;
        for (what, count, floor) in [
            ("operations", self.ops, share(OPERATIONS)),
            ("temptations", self.temptations, share(TEMPTATIONS)),
            ("failovers", self.failovers(), share(FAILOVERS)),
            ("replica share, in percent", (100.0 * self.replica_share()) as u64, (100.0 * REPLICA_SHARE) as u64),
        ] {
            if count < floor {
                println!("void: {what}: {count} of {floor}");
                code = 3;
            }
        }
        code
    }
}
