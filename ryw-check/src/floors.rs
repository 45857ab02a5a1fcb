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

/// A floor that no report could be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a number {range}")]
pub struct FloorError {
    range: &'static str,
}

impl Floors {
    /// A [`rate`](Self::rate) as an option of a command says it.
    ///
    /// ```
    /// use ryw_check::Floors;
    /// assert_eq!(Floors::parse_rate("500"), Ok(500.0));
    /// assert!(Floors::parse_rate("NaN").is_err() && Floors::parse_rate("-1").is_err());
    /// ```
    ///
    /// # Errors
    /// Where it is no number, or none that is finite and not negative.
    pub fn parse_rate(text: &str) -> Result<f64, FloorError> {
        Self::parse(text, f64::MAX).ok_or(FloorError { range: "that is not negative" })
    }

    /// A share, such as [`replica_share`](Self::replica_share), as an option of a command says it.
    ///
    /// ```
    /// use ryw_check::Floors;
    /// assert_eq!(Floors::parse_share("0.1"), Ok(0.1));
    /// assert!(Floors::parse_share("10").is_err());
    /// ```
    ///
    /// # Errors
    /// Where it is no number from 0 to 1.
    pub fn parse_share(text: &str) -> Result<f64, FloorError> {
        Self::parse(text, 1.0).ok_or(FloorError { range: "from 0 to 1" })
    }

    fn parse(text: &str, most: f64) -> Option<f64> {
        text.parse().ok().filter(|number| (0.0..=most).contains(number))
    }

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
