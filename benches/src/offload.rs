//! How many reads replicas may serve: positions beside time windows, and beside somebody who knows everything.

use std::{error::Error, path::PathBuf, process::Command, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    plot::Lines,
    report::{Goal, Section, Table, number},
};

/// Mean lags of the replicas, in ms: each entry takes between half and one and a half of it.
pub const LAGS_MS: [u64; 6] = [1, 5, 20, 50, 150, 500];
/// Shares of writes among all requests, in percent.
pub const WRITE_SHARES: [u64; 3] = [1, 10, 50];
/// How long a read may wait for a replica; the oracle's may as well.
pub const PATIENCE: Duration = Duration::from_millis(10);

/// One lag and one share of writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Mean lag of the replicas.
    pub lag_ms: u64,
    /// Share of writes.
    pub write_percent: u64,
    /// How many reads were counted.
    pub reads: u64,
    /// The share of them that replicas could have served.
    pub oracle: f64,
    /// The share that tower-ryw let them serve.
    pub positions: f64,
    /// With a window of two seconds.
    pub window_2s: f64,
    /// With a window of a minute.
    pub window_60s: f64,
    /// Reads that missed a write of their own session, in the order above.
    pub stale: [u64; 3],
}

/// The simulation needs a clock that can be stopped, which costs every other measurement: it is a program of its own.
fn simulation() -> Result<PathBuf, Box<dyn Error>> {
    match std::env::var_os("RYW_BENCH_OFFLOAD") {
        Some(program) => Ok(program.into()),
        None => Err("RYW_BENCH_OFFLOAD does not say where the simulation is: start this with ./bench".into()),
    }
}

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    let output = Command::new(simulation()?).arg(if quick { "10" } else { "240" }).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(section(&serde_json::from_slice::<Vec<Cell>>(&output.stdout)?))
}

fn section(cells: &[Cell]) -> Section {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut table = Table::new([
        "mean lag, writes",
        "oracle",
        "tower-ryw",
        "of the oracle's",
        "window of 2 s",
        "window of 60 s",
        "stale",
    ]);
    for cell in cells {
        let Cell { lag_ms, write_percent, oracle, positions, window_2s, window_60s, stale, .. } = cell;
        table.row([
            format!("{lag_ms} ms, {write_percent} %").into(),
            percent(*oracle).into(),
            percent(*positions).into(),
            percent(positions / oracle).into(),
            percent(*window_2s).into(),
            percent(*window_60s).into(),
            stale.map(|count| count.to_string()).join(" / ").into(),
        ]);
    }
    let worst = cells.iter().map(|cell| cell.positions / cell.oracle).fold(f64::INFINITY, f64::min);
    let stale: u64 = cells.iter().map(|cell| cell.stale[0]).sum();
    let of_ten = |share: fn(&Cell) -> f64| {
        let cells = cells.iter().filter(|cell| cell.write_percent == 10);
        cells.map(|cell| (cell.lag_ms as f64, share(cell) * 100.0)).collect()
    };
    let lines = Lines {
        title: "Reads that replicas serve, at 10 % writes".into(),
        x: "mean lag of the replicas, ms",
        y: "% of reads",
        log_x: true,
        series: vec![
            ("tower-ryw".into(), of_ten(|cell| cell.positions)),
            ("oracle".into(), of_ten(|cell| cell.oracle)),
            ("window of 2 s".into(), of_ten(|cell| cell.window_2s)),
            ("window of 60 s".into(), of_ten(|cell| cell.window_60s)),
        ],
    };
    let reads: u64 = cells.iter().map(|cell| cell.reads).sum();
    Section {
        id: "offload",
        title: "Reads on replicas",
        text: format!(
            "The handler tells where each write is. Sixteen sessions with pauses of up to 100 ms between their requests, two replicas, a clock that does not wait; a \
             read may wait {} ms. Stale are reads that missed a write of their own session: tower-ryw / 2 s / 60 s.",
            PATIENCE.as_millis()
        ),
        tables: vec![table],
        goals: vec![Goal {
            what: "reads on replicas, of those an oracle would send there",
            goal: "≥ 99 %, none stale",
            measured: format!("{} at worst, {stale} stale of {}", percent(worst), number(reads as f64)),
            met: worst >= 0.99 && stale == 0,
            why: "whether a wait is worth a try is guessed from the last waits",
        }],
        plots: vec![("offload.svg".into(), lines.svg())],
    }
}
