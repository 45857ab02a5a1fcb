//! What does not depend on the machine's mood: allocations, and instructions as callgrind counts them.

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    process::{Command, Stdio},
};

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::{
    alloc::allocated,
    bench::{Bench, measured},
    cases::Cases,
};

/// Requests that are counted together.
const REQUESTS: usize = 64;

/// What one request costs more with a layer than without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Allocations.
    pub allocations: f64,
    /// Bytes asked for.
    pub bytes: f64,
    /// Instructions; `None` where valgrind is not there.
    pub instructions: Option<f64>,
    /// Whether the layer is this project's own: what peers cost is shown, and not promised.
    #[serde(skip)]
    pub ours: bool,
}

/// By the id of the case.
pub type All = BTreeMap<String, Counts>;

/// Allocations of all cases.
pub fn allocations() -> Result<All, Box<dyn Error>> {
    let mut cases = Cases::new()?;
    let _entered = cases.runtime.enter();
    let mut all = All::new();
    for case in &mut cases.all {
        let [(count, bytes), (bare_count, bare_bytes)] = [&mut case.with, &mut case.without].map(|bench| {
            warm(&mut **bench);
            bench.prepare(REQUESTS);
            let (allocated, ()) = allocated(|| measured(&mut **bench));
            (allocated.count as f64 / REQUESTS as f64, allocated.bytes as f64 / REQUESTS as f64)
        });
        let counts =
            Counts { allocations: count - bare_count, bytes: bytes - bare_bytes, instructions: None, ours: case.ours };
        all.insert(case.id.to_owned(), counts);
    }
    Ok(all)
}

fn warm(bench: &mut dyn Bench) {
    bench.prepare(REQUESTS);
    bench.run();
}

/// What a program that [counts](instructions) is started once more for.
#[derive(Debug, Subcommand)]
pub enum Again {
    /// What valgrind runs.
    #[command(hide = true)]
    Watched {
        /// One case only.
        case: Option<String>,
    },
}

impl Again {
    /// Does it.
    pub fn run(&self) -> Result<(), Box<dyn Error>> {
        let Self::Watched { case } = self;
        watched(case.as_deref())
    }
}

/// What callgrind watches: each case with its layer and without, in the order of the table.
fn watched(only: Option<&str>) -> Result<(), Box<dyn Error>> {
    let mut cases = Cases::new()?;
    let _entered = cases.runtime.enter();
    for case in &mut cases.all {
        if only.is_none_or(|only| only == case.id) {
            for bench in [&mut case.with, &mut case.without] {
                warm(&mut **bench);
                bench.prepare(REQUESTS);
                measured(&mut **bench);
            }
        }
    }
    Ok(())
}

/// Whether instructions can be counted here.
pub fn has_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Adds the instructions: runs this very program once more, under callgrind, which has to understand [`Again`].
pub fn instructions(all: &mut All) -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("ryw-costs-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let counted = count_in(&directory, all);
    std::fs::remove_dir_all(&directory)?;
    counted
}

fn count_in(directory: &Path, all: &mut All) -> Result<(), Box<dyn Error>> {
    let function = "ryw_costs::bench::measured";
    let out = directory.join("callgrind");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--combine-dumps=yes"])
        .arg(format!("--toggle-collect={function}"))
        .arg(format!("--dump-after={function}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg("watched")
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("valgrind has failed: {status}").into());
    }
    let text = std::fs::read_to_string(&out)?;
    let totals: Vec<f64> = text.lines().filter_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok()).collect();
    let cases = Cases::new()?;
    if totals.len() < 2 * cases.all.len() {
        return Err(format!("callgrind has seen {} runs of {}", totals.len(), 2 * cases.all.len()).into());
    }
    for (case, pair) in cases.all.iter().zip(totals.chunks(2)) {
        if let (Some(counts), [with, without]) = (all.get_mut(case.id), pair) {
            counts.instructions = Some((with - without) / REQUESTS as f64);
        }
    }
    Ok(())
}
