//! Which seeded bugs the simulation catches, and how often.
//!
//! ```text
//! matrix [--seeds 40] [--first 1] [--enough 1] [BUG…]
//! ```

use std::ops::ControlFlow;

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
    /// Fails unless each is caught by at least one run.
    #[arg(long)]
    all: bool,
    /// Only these.
    bugs: Vec<String>,
}

fn main() -> std::process::ExitCode {
    let Args { seeds, first, threads, enough, all, bugs } = Args::parse();
    println!("| bug | caught | first at op | kinds |\n|---|---|---|---|");
    let mut survivors = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| bugs.is_empty() || bugs.iter().any(|name| name == bug.name())) {
        seeded::set(Some(bug));
        let mut caught: Vec<Outcome> = Vec::new();
        let (mut runs, mut broken) = (0, 0);
        many(first..first + seeds, Some(bug), threads, |_, outcome| {
            runs += 1;
            match outcome {
                Ok(outcome) if !outcome.violations.is_empty() => caught.push(outcome),
                Ok(_) => {}
                Err(_) => broken += 1,
            }
            if enough.is_some_and(|enough| caught.len() >= enough) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        seeded::set(None);
        let mut kinds: Vec<&str> =
            caught.iter().flat_map(|run| run.violations.iter().map(|violation| violation.kind.as_str())).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let at = caught.iter().filter_map(|run| run.first).min().map_or_else(|| "–".into(), |at| at.to_string());
        let note = if broken > 0 { format!(" ({broken} broken)") } else { String::new() };
        println!("| {} | {}/{runs}{note} | {at} | {} |", bug.name(), caught.len(), kinds.join(" "));
        if caught.is_empty() {
            survivors.push(bug.name());
        }
    }
    if !survivors.is_empty() {
        println!("\nnot caught here: {}", survivors.join(", "));
    }
    std::process::ExitCode::from(u8::from(all && !survivors.is_empty()))
}
