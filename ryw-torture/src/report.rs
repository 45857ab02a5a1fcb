//! The summary, for people and for programs.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{error::Error, load::Sums, verdict::Result as Judged};

/// How many violations are printed; all of them are in the history.
const SHOWN: usize = 20;

/// Everything that a run amounts to.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) seed: u64,
    pub(crate) took: Duration,
    pub(crate) judged: &'a Judged,
    pub(crate) sums: &'a Sums,
    pub(crate) faults: &'a BTreeMap<&'static str, u64>,
}

impl Summary<'_> {
    pub(crate) fn print(&self) {
        let Self { seed, took, judged, sums, faults } = self;
        let report = &judged.report;
        let rows = [
            ("seed", seed.to_string()),
            ("duration", format!("{:.0} s", took.as_secs_f64())),
            ("operations", format!("{} ({:.0}/s)", report.ops, report.rate)),
            ("temptations", report.temptations.to_string()),
            ("reads by replicas", format!("{:.1} %", 100.0 * sums.replica_share())),
            ("cut short by clients", sums.cancelled.to_string()),
            ("refused, failed, unanswered", format!("{}, {}, {}", sums.refused, sums.failed, sums.unanswered)),
            ("promised nothing", format!("{} ({:.2} %)", sums.unpromised, 100.0 * sums.unpromised_share())),
            ("told of losses", sums.resets.to_string()),
            ("half within, 99 % within", format!("{:.1} ms, {:.1} ms", ms(sums.p50_us), ms(sums.p99_us))),
            ("violations", report.violations.len().to_string()),
            ("found by the positive control", judged.caught.map_or("none was run".into(), |found| found.to_string())),
        ];
        for (name, value) in rows {
            println!("{name:<30} {value}");
        }
        for (name, count) in *faults {
            println!("  {name:<34} {count:>4}");
        }
        for violation in report.violations.iter().take(SHOWN) {
            println!("{} session {:?} ops {:?}: {}", violation.kind, violation.session, violation.ops, violation.why);
        }
        for missed in &judged.missed {
            println!("below the floor: {missed}");
        }
        println!("verdict: {}", judged.verdict.as_str());
    }

    /// As `summary.json`.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let Self { seed, took, judged, sums, faults } = self;
        let violation = |violation: &ryw_check::Violation| {
            let kind = violation.kind.as_str();
            serde_json::json!({ "kind": kind, "session": violation.session, "ops": violation.ops, "why": violation.why })
        };
        let violations: Vec<_> = judged.report.violations.iter().map(violation).collect();
        let summary = serde_json::json!({
            "seed": seed,
            "seconds": took.as_secs_f64(),
            "ops": judged.report.ops,
            "rate": judged.report.rate,
            "temptations": judged.report.temptations,
            "replica_share": sums.replica_share(),
            "sums": sums,
            "faults": faults,
            "violations": violations,
            "control": judged.caught,
            "missed": judged.missed,
            "verdict": judged.verdict.as_str(),
        });
        let path = folder.join("summary.json");
        let written = serde_json::to_vec_pretty(&summary).map_err(std::io::Error::from);
        written.and_then(|text| std::fs::write(path, text)).map_err(Error::with("can't write the summary"))
    }
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
