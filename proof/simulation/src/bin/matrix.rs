//! Which seeded bugs the simulation catches and how often, and which of them other tests catch.
//!
//! ```text
//! matrix [--seeds 40] [--first 1] [--enough 1] [--tests NAME=PATH]… [BUG…]
//! ```

use std::{
    io::{self, Read},
    ops::ControlFlow,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    str::FromStr,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Parser;
use ryw_core::seeded::{self, Bug};
use ryw_simulation::{Outcome, many};

/// Runs each seeded bug over some seeds, and prints how many of the runs have caught it.
#[derive(Parser)]
struct Args {
    /// How many seeds each.
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Goes on to the next bug once so many runs have caught this one.
    #[arg(long)]
    enough: Option<usize>,
    /// Also runs these tests with each bug: a binary as `cargo test --no-run` builds it, and the name of its column.
    #[arg(long, value_name = "NAME=PATH")]
    tests: Vec<Tests>,
    /// Fails unless each is caught by something.
    #[arg(long)]
    all: bool,
    /// Only these.
    bugs: Vec<String>,
}

fn main() -> ExitCode {
    match matrix(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("matrix: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints it. Returns whether it is as complete as was asked for.
fn matrix(args: &Args) -> io::Result<bool> {
    if let Some(name) = args.bugs.iter().find(|name| Bug::named(name).is_none()) {
        let known: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        return Err(io::Error::other(format!("there is no bug {name}, but {}", known.join(", "))));
    }
    for tests in &args.tests {
        // What fails anyhow catches nothing.
        if tests.failing(None)? > 0 {
            return Err(io::Error::other(format!("tests of {} fail without any bug", tests.name)));
        }
    }
    let names: String = args.tests.iter().map(|tests| format!(" {} |", tests.name)).collect();
    println!("| bug | simulation | first at op | kinds |{names}\n|{}", "---|".repeat(4 + args.tests.len()));
    let mut survivors = Vec::new();
    let is_asked = |bug: &Bug| args.bugs.is_empty() || args.bugs.iter().any(|name| name == bug.name());
    for bug in Bug::ALL.into_iter().filter(is_asked) {
        let simulated = Simulated::with(bug, args);
        print!("| {} | {simulated}", bug.name());
        let mut is_caught = !simulated.caught.is_empty();
        for tests in &args.tests {
            let failed = tests.failing(Some(bug))?;
            is_caught |= failed > 0;
            print!(" {failed} |");
        }
        println!();
        if !is_caught {
            survivors.push(bug.name());
        }
    }
    if !survivors.is_empty() {
        println!("\nnot caught here: {}", survivors.join(", "));
    }
    Ok(!args.all || survivors.is_empty())
}

/// What the simulation made of one bug.
struct Simulated {
    runs: usize,
    broken: usize,
    caught: Vec<Outcome>,
}

impl Simulated {
    fn with(bug: Bug, args: &Args) -> Self {
        let mut simulated = Self { runs: 0, broken: 0, caught: Vec::new() };
        seeded::set(Some(bug));
        many(args.first..args.first.saturating_add(args.seeds), Some(bug), args.threads, |_, outcome| {
            simulated.runs += 1;
            match outcome {
                Ok(outcome) if !outcome.violations.is_empty() => simulated.caught.push(outcome),
                Ok(_) => {}
                Err(_) => simulated.broken += 1,
            }
            if args.enough.is_some_and(|enough| simulated.caught.len() >= enough) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        seeded::set(None);
        simulated
    }
}

impl std::fmt::Display for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, broken, caught } = self;
        let violations = caught.iter().flat_map(|run| &run.violations);
        let mut kinds: Vec<&str> = violations.map(|violation| violation.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let at = caught.iter().filter_map(|run| run.first).min().map_or_else(|| "–".into(), |at| at.to_string());
        let note = if *broken > 0 { format!(" ({broken} broken)") } else { String::new() };
        write!(f, "{}/{runs}{note} | {at} | {} |", caught.len(), kinds.join(" "))
    }
}

/// A test binary.
#[derive(Clone)]
struct Tests {
    name: String,
    path: PathBuf,
}

impl FromStr for Tests {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

impl Tests {
    /// A guard that is missing may make a test wait for good.
    const DEADLINE: Duration = Duration::from_secs(120);

    /// How many of them fail with this bug; one that goes on for too long is one.
    fn failing(&self, bug: Option<Bug>) -> io::Result<usize> {
        let mut command = Command::new(&self.path);
        match bug {
            Some(bug) => command.env(seeded::VARIABLE, bug.name()),
            None => command.env_remove(seeded::VARIABLE),
        };
        let mut child = command
            // Their own test says that no bug is on.
            .args(["--skip", "none_is_on"])
            // What fails here is no case to remember.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take();
        let (done, ended) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut said = Vec::new();
            let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut said));
            let _ = done.send(());
            read.map(|_| String::from_utf8_lossy(&said).into_owned())
        });
        let is_late = ended.recv_timeout(Self::DEADLINE).is_err();
        if is_late {
            child.kill()?;
        }
        let status = child.wait()?;
        let said = reader.join().map_err(|_| io::Error::other("the reader of a test's output has panicked"))??;
        let failed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... FAILED")).count();
        // A process that has ended without a word has not passed.
        Ok(failed.max(usize::from(!status.success())))
    }
}
