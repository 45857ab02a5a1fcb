//! Floors under which a run proves nothing.

use crate::report::{Report, Verdict};

/// What a run must have had for its silence to mean something. Default: nothing.
///
/// ```
/// use ryw_check::{Floors, History, Options, Verdict, check};
///
/// let report = check(&History::default(), &Options::default());
/// assert_eq!(Floors::default().verdict(&report), Verdict::Clean);
/// let floors = Floors { temptations: 1, ..Floors::default() };
/// assert_eq!(floors.verdict(&report), Verdict::Void);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floors {
    /// The least [`Report::temptations`]. Default: 0.
    pub temptations: u64,
    /// The least [`Report::replica_share`], from 0 to 1. Default: 0.
    pub replica_share: f64,
    /// The least [`Report::rate`], in operations per second. Default: 0.
    pub rate: f64,
    /// For each kind of fault, how often it was injected and the least that suffices. Default: none.
    pub faults: Vec<Fault>,
}

/// How often a fault was injected, as the test that did it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name, for people.
    pub name: String,
    /// How often it was injected.
    pub count: u64,
    /// The least that suffices.
    pub floor: u64,
}

impl Floors {
    /// The floors that a report does not reach, a sentence each.
    #[must_use]
    pub fn missed(&self, report: &Report) -> Vec<String> {
        let mut missed = Vec::new();
        if report.temptations < self.temptations {
            missed.push(format!("temptations: {} of {}", report.temptations, self.temptations));
        }
        if report.replica_share < self.replica_share {
            missed.push(format!("replica share: {:.3} of {:.3}", report.replica_share, self.replica_share));
        }
        if report.rate < self.rate {
            missed.push(format!("operations per second: {:.1} of {:.1}", report.rate, self.rate));
        }
        for Fault { name, count, floor } in &self.faults {
            if count < floor {
                missed.push(format!("fault {name}: {count} of {floor}"));
            }
        }
        missed
    }

    /// A violation is one whatever the floors; without any, a missed floor makes the run void.
    #[must_use]
    pub fn verdict(&self, report: &Report) -> Verdict {
        if !report.violations.is_empty() {
            Verdict::Violated
        } else if self.missed(report).is_empty() {
            Verdict::Clean
        } else {
            Verdict::Void
        }
    }
}
