//! `./bench`: measures, and writes what came of it into `docs/bench/`.

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ryw_bench::{
    client, end_to_end, machine, offload,
    overhead::{self, baseline, counts},
    positions, readme, redis,
    report::{Section, goals, markdown},
    store,
};

/// Measures tower-ryw beside what it is compared with.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Less of everything: under two minutes.
    #[arg(long)]
    quick: bool,
    /// Where tables and drawings go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench"))]
    out: PathBuf,
    /// Also puts the headline into README.md.
    #[arg(long)]
    readme: bool,
    /// Only these of overhead, store, offload, end_to_end, redis, positions and client; the page has no others then.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compares allocations and instructions with what was committed.
    Counts {
        /// Commits to what they are now.
        #[arg(long)]
        update: bool,
    },
    /// What valgrind runs.
    #[command(hide = true)]
    Watched {
        /// One case only.
        case: Option<String>,
    },
}

type Run = fn(bool) -> Result<Section, Box<dyn Error>>;

const SECTIONS: [(&str, Run); 7] = [
    ("overhead", overhead::run),
    ("store", store::run),
    ("offload", offload::run),
    ("end_to_end", end_to_end::run),
    ("redis", redis::run),
    ("positions", positions::run),
    ("client", client::run),
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    match &options.command {
        Some(Command::Watched { case }) => counts::watched(case.as_deref())?,
        Some(Command::Counts { update }) => return compare(*update),
        None => measure(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(update: bool) -> Result<ExitCode, Box<dyn Error>> {
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
    if update {
        baseline::update(&now)?;
        return Ok(ExitCode::SUCCESS);
    }
    let found = baseline::regressions(&now, &baseline::committed()?);
    for line in &found {
        eprintln!("{line}");
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(Options { quick, out, readme, only, .. }: &Options) -> Result<(), Box<dyn Error>> {
    let mut sections = Vec::new();
    for (id, run) in SECTIONS {
        if only.is_empty() || only.iter().any(|wanted| wanted == id) {
            eprintln!("{id} …");
            sections.push(run(*quick).map_err(|error| format!("{id}: {error}"))?);
        }
    }
    fs::create_dir_all(out)?;
    let machine = machine::description(*quick);
    for (name, drawing) in sections.iter().flat_map(|section| &section.plots) {
        fs::write(out.join(name), drawing)?;
    }
    fs::write(out.join("README.md"), markdown(&machine, &sections))?;
    let all = serde_json::json!({ "machine": machine, "sections": sections });
    fs::write(out.join("results.json"), serde_json::to_string_pretty(&all)? + "\n")?;
    println!("{machine}\n\n{}", goals(&sections));
    let headline = readme::headline(&machine, &sections);
    println!("{headline}");
    if *readme {
        readme::put(&headline)?;
    }
    Ok(())
}
