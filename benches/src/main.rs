//! `./bench`: measures, and writes what came of it into `docs/bench/`.

use std::{error::Error, fs, path::PathBuf};

use clap::Parser;
use ryw_bench::{
    client, end_to_end, machine, offload, overhead, positions, readme, redis,
    report::{Section, goals, markdown},
    store,
};
use ryw_costs::counts::Again;

/// Measures tower-ryw beside what it is compared with.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    again: Option<Again>,
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

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    match &options.again {
        Some(again) => again.run(),
        None => measure(&options),
    }
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
