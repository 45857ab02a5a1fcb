//! The demo's result, for people.

use std::time::Duration;

use super::{
    NAMES,
    load::{Read, Report},
};

pub(crate) fn print(reports: &[Report; 3], ideal: Option<f64>) {
    println!(
        "\n{:<12} {:>8} {:>8} {:>8} {:>13} {:>9} {:>9}",
        "", "writes", "reads", "stale", "by replicas", "p50", "p99"
    );
    for (name, report) in NAMES.iter().zip(reports) {
        let share = by_replicas(&report.reads);
        println!(
            "{name:<12} {:>8} {:>8} {:>8} {:>13} {:>9} {:>9}",
            report.writes,
            report.reads.len(),
            report.stale(),
            // Without a layer nobody tells, and every read goes to a replica.
            share.map_or_else(|| "100.0 %".into(), percent),
            quantile(&report.reads, 50),
            quantile(&report.reads, 99),
        );
    }
    let ours = by_replicas(&reports[2].reads);
    if let (Some(ideal), Some(ours)) = (ideal, ours) {
        println!("\nan oracle that knows every replica's position at every moment: {}", percent(ideal));
        println!("tower-ryw differs from it by {:+.2} percentage points\n", (ours - ideal) * 100.0);
    }
}

/// The share of reads that replicas served; `None` when nobody tells.
pub(crate) fn by_replicas(reads: &[Read]) -> Option<f64> {
    let told: Vec<bool> = reads.iter().filter_map(|read| read.by_replica).collect();
    #[expect(clippy::cast_precision_loss, reason = "counts of reads are small")]
    let share = told.iter().filter(|by_replica| **by_replica).count() as f64 / told.len() as f64;
    (!told.is_empty()).then_some(share)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn quantile(reads: &[Read], percent: usize) -> String {
    let mut times: Vec<Duration> = reads.iter().map(|read| read.took).collect();
    times.sort_unstable();
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).map_or_else(|| "-".into(), |time| format!("{:.2} ms", time.as_secs_f64() * 1000.0))
}
