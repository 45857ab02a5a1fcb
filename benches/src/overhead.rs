//! What a layer adds to a request: in time, in instructions, and in allocations.

use std::{collections::BTreeMap, error::Error, time::Duration};

use ryw_costs::{bench::time, cases::Cases, counts};

use crate::{
    plot::Bars,
    report::{Cell, Goal, Section, Spread, Table, number},
};

/// Requests in one turn of one case.
const REQUESTS: usize = 256;

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    let mut all = counts::allocations()?;
    if counts::has_valgrind() {
        counts::instructions(&mut all)?;
    }
    let mut cases = Cases::new()?;
    let adds = times(&mut cases, if quick { 41 } else { 401 });
    let spread = |id: &str| Spread::of(adds.get(id).cloned().unwrap_or_default());
    let ratio = |of: &str, to: &str| {
        let both = adds.get(of).into_iter().flatten().zip(adds.get(to).into_iter().flatten());
        Spread::of(both.map(|(of, to)| of / to).collect())
    };
    let mut table =
        Table::new(["adds to a request", "ns", "instructions", "allocations", "bytes", "× tower-sessions untouched"]);
    let mut bars = Bars { title: "Added to a request".into(), unit: "ns", bars: Vec::new() };
    for case in &cases.all {
        let counts = all.get(case.id).copied().unwrap_or_default();
        table.row([
            case.name.into(),
            spread(case.id).into(),
            counts.instructions.map(f64::round).into(),
            Cell::Number(counts.allocations),
            Cell::Number(counts.bytes.round()),
            ratio(case.id, "sessions_untouched").into(),
        ]);
        bars.bars.push((case.name.to_owned(), spread(case.id).median, case.ours));
    }
    let allocations = |id: &str| all.get(id).map_or(f64::NAN, |counts| counts.allocations);
    let beyond: Vec<f64> = adds["passthrough"].iter().zip(&adds["add_extension"]).map(|(of, to)| of - to).collect();
    let beyond = Spread::of(beyond).median;
    let (read, write) = (ratio("read_marked", "sessions_untouched").median, ratio("write", "sessions_insert").median);
    let goal = |what, goal, measured, met, why| Goal { what, goal, measured, met, why };
    Ok(Section {
        id: "overhead",
        title: "What a layer adds to a request",
        text: format!(
            "The same service with and without each layer, {REQUESTS} requests at a time, in turns, ns of processor time; each request has a few headers \
             and an extension, as a server makes them, and each response a content type. Instructions are callgrind's, which \
             knows no instructions for SHA-256 and so counts more of them for signed tokens than a processor needs."
        ),
        tables: vec![table],
        goals: vec![
            goal(
                "passthrough: allocations",
                "0",
                number(allocations("passthrough")),
                allocations("passthrough") < 0.01,
                "",
            ),
            goal(
                "passthrough, beyond AddExtension",
                "< 15 ns",
                format!("{} ns", number(beyond)),
                beyond < 15.0,
                "it looks at each header's name, asks the policy, and makes itself known while the service is polled",
            ),
            goal(
                "read, local mark: allocations",
                "≤ 2",
                number(allocations("read_marked")),
                allocations("read_marked") < 2.01,
                "",
            ),
            goal(
                "read, local mark, beside an untouched tower-sessions",
                "≤ 0.5×",
                format!("{}×", number(read)),
                read <= 0.5,
                "its answer says who served and why in five headers, which are a quarter of it; that one has only made itself available",
            ),
            goal(
                "write, local mark, beside a tower-sessions insert",
                "≤ 0.3×",
                format!("{}×", number(write)),
                write <= 0.3,
                "its answer carries a signed token, two blocks of SHA-256, and a seventh header, which makes the map of them grow",
            ),
        ],
        plots: vec![("overhead.svg".into(), bars.svg())],
    })
}

/// What each case adds, turn by turn.
fn times(cases: &mut Cases, rounds: usize) -> BTreeMap<&'static str, Vec<f64>> {
    let mut adds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        // Replicas report once in a while.
        cases.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        let _entered = cases.runtime.enter();
        for case in &mut cases.all {
            let with = time(&mut *case.with, REQUESTS);
            let without = time(&mut *case.without, REQUESTS);
            // The first one warms.
            if round > 0 {
                adds.entry(case.id).or_default().push(with - without);
            }
        }
    }
    adds
}
