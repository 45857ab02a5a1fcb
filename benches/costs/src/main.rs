//! Compares what requests cost with what was committed.

use std::{error::Error, process::ExitCode};

use clap::Parser;
use ryw_costs::{
    baseline,
    counts::{self, Again},
};

/// Compares allocations and instructions of requests with what was committed.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    again: Option<Again>,
    /// Commits to what they are now.
    #[arg(long)]
    update: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    if let Some(again) = &options.again {
        again.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut now = counts::allocations()?;
    if counts::has_valgrind() {
        counts::instructions(&mut now)?;
    } else {
        println!("valgrind is not there: only allocations are counted");
    }
    for (id, counts) in &now {
        let instructions = counts.instructions.map_or_else(|| "–".to_owned(), |count| format!("{count:.0}"));
        println!(
            "{id:<26} {:>6.2} allocations {:>7.0} bytes {instructions:>7} instructions",
            counts.allocations, counts.bytes
        );
    }
    if options.update {
        baseline::update(&now)?;
        return Ok(ExitCode::SUCCESS);
    }
    let found = baseline::regressions(&now, &baseline::committed()?);
    for line in &found {
        eprintln!("{line}");
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
