//! What requests may cost: counts that don't depend on the machine, compared with those that were committed.

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf};

use crate::counts::{All, Counts};

/// Where they are.
fn file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "baseline.json"].iter().collect()
}

/// What was committed.
pub fn committed() -> Result<All, Box<dyn Error>> {
    Ok(serde_json::from_str(&fs::read_to_string(file())?)?)
}

/// Commits to these from now on; peers are not ours to promise.
pub fn update(all: &All) -> Result<(), Box<dyn Error>> {
    let ours: BTreeMap<_, _> = all.iter().filter(|(_, counts)| counts.ours).collect();
    Ok(fs::write(file(), serde_json::to_string_pretty(&ours)? + "\n")?)
}

/// What costs more than it did, in words. An allocation in twenty requests is one too many; instructions differ a little
/// between processors and compilers.
pub fn regressions(now: &All, committed: &All) -> Vec<String> {
    let mut found = Vec::new();
    for (id, was) in committed {
        let Some(is) = now.get(id) else {
            found.push(format!("{id} is not measured any more"));
            continue;
        };
        let mut check = |what: &str, is: f64, was: f64, room: f64| {
            if is > was + room {
                found.push(format!("{id}: {is:.2} {what}, {was:.2} were committed"));
            }
        };
        let Counts { allocations, bytes, instructions, .. } = *was;
        check("allocations", is.allocations, allocations, 0.05);
        check("bytes", is.bytes, bytes, 16.0 + bytes.abs() * 0.05);
        if let (Some(is), Some(was)) = (is.instructions, instructions) {
            check("instructions", is, was, 30.0 + was.abs() * 0.05);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(allocations: f64, bytes: f64, instructions: Option<f64>) -> All {
        [("read".to_owned(), Counts { allocations, bytes, instructions, ours: true })].into()
    }

    #[test]
    fn more_is_told_and_less_is_not() {
        let committed = one(2.0, 400.0, Some(1000.0));
        for (now, expected) in [
            (one(2.0, 400.0, Some(1000.0)), 0),
            (one(1.0, 300.0, Some(900.0)), 0),
            (one(2.0, 400.0, None), 0),
            (one(2.0, 430.0, Some(1079.0)), 0),
            (one(2.1, 400.0, Some(1000.0)), 1),
            (one(2.0, 440.0, Some(1081.0)), 2),
            (All::new(), 1),
        ] {
            assert_eq!(regressions(&now, &committed).len(), expected, "{now:?}");
        }
    }
}
