//! The picture of a run, as SVG: what went wrong, how far behind standbys were, and who served.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use crate::{run::Injected, sample::Sample};

const WIDTH: f64 = 1500.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 20.0;
const LANE: f64 = 16.0;
const PLOT: f64 = 150.0;
const GAP: f64 = 40.0;

const COLOURS: [&str; 3] = ["#1b6ca8", "#c8553d", "#3f7d20"];
/// Who served, from below: replicas, the primary, writes, and what was no answer or no promise.
const ANSWERS: [(&str, &str); 4] = [
    ("reads by replicas", "#7fb685"),
    ("reads by the primary", "#f2c14e"),
    ("writes", "#8ea8c3"),
    ("no promise", "#c8553d"),
];

/// Draws it.
pub(crate) fn draw(samples: &[Sample], injected: &[Injected], took: Duration) -> String {
    let lanes: BTreeSet<&str> = injected.iter().map(|injected| injected.fault.name()).collect();
    let lanes: Vec<&str> = lanes.into_iter().collect();
    let faults = 40.0 + LANE * lanes.len() as f64;
    let lag = faults + GAP;
    let served = lag + PLOT + GAP;
    let height = served + PLOT + GAP;
    let x = Axis { took: took.as_secs_f64().max(1.0) };
    let mut svg = String::new();
    // Writing to a String does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"11\"><title>Faults, lag and routing</title><rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
    x.grid(&mut svg, 30.0, served + PLOT);
    for (number, lane) in lanes.iter().enumerate() {
        let y = 32.0 + LANE * number as f64;
        text(&mut svg, LEFT - 8.0, y + 11.0, "end", lane);
        for injected in injected.iter().filter(|injected| injected.fault.name() == *lane) {
            let (from, until) = (x.at(injected.from), x.at(injected.until));
            let colour = if lane.contains("failover") || *lane == "switchover" { COLOURS[1] } else { "#666" };
            let _ = write!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"><title>{}</title></rect>",
                (until - from).max(1.5),
                LANE - 3.0,
                injected.fault
            );
        }
    }
    draw_lag(&mut svg, samples, &x, lag);
    draw_served(&mut svg, samples, &x, served);
    svg.push_str("</svg>\n");
    svg
}

/// Seconds from left to right.
struct Axis {
    took: f64,
}

impl Axis {
    fn at(&self, time: Duration) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (time.as_secs_f64() / self.took).min(1.0)
    }

    fn grid(&self, svg: &mut String, top: f64, bottom: f64) {
        let step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800]
            .into_iter()
            .find(|step| self.took / f64::from(*step) <= 20.0);
        let step = u64::from(step.unwrap_or(3600_u32));
        let mut second = 0;
        while second as f64 <= self.took {
            let x = self.at(Duration::from_secs(second));
            let _ = write!(svg, "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#ddd\"/>");
            text(svg, x, top - 8.0, "middle", &format!("{second} s"));
            second += step;
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// How late each standby is. Gaps are servers that don't answer, or lead.
fn draw_lag(svg: &mut String, samples: &[Sample], x: &Axis, top: f64) {
    let names: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.lag.keys()).collect();
    let most = samples.iter().flat_map(|sample| sample.lag.values().flatten()).max().copied().unwrap_or_default();
    let most = most.as_secs_f64().max(0.001);
    text(svg, LEFT - 8.0, top + 11.0, "end", &format!("lag, up to {most:.1} s"));
    for (number, name) in names.into_iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let (mut path, mut drawing) = (String::new(), false);
        for sample in samples {
            let Some(Some(lag)) = sample.lag.get(name) else {
                drawing = false;
                continue;
            };
            let y = top + PLOT - PLOT * lag.as_secs_f64() / most;
            let command = if drawing { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {y:.1}", x.at(sample.at));
            drawing = true;
        }
        let _ = write!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\"/>");
        let y = top + 30.0 + 15.0 * number as f64;
        let _ = write!(svg, "<rect x=\"20\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9.0);
        text(svg, 36.0, y, "start", name);
    }
}

/// Answers per second, one kind upon the other.
fn draw_served(svg: &mut String, samples: &[Sample], x: &Axis, top: f64) {
    let rates: Vec<(Duration, [f64; 4])> = samples
        .windows(2)
        .map(|pair| {
            let (before, after) = (&pair[0].sums, &pair[1].sums);
            let seconds = (pair[1].at - pair[0].at).as_secs_f64().max(0.001);
            let none = |sums: &crate::load::Sums| sums.unpromised + sums.refused + sums.failed + sums.unanswered;
            let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
            let rates = [
                rate(after.by_replica, before.by_replica),
                rate(after.by_primary, before.by_primary),
                rate(after.writes, before.writes),
                rate(none(after), none(before)),
            ];
            (pair[1].at, rates)
        })
        .collect();
    let most = rates.iter().map(|(_, rates)| rates.iter().sum::<f64>()).fold(1.0, f64::max);
    text(svg, LEFT - 8.0, top + 11.0, "end", &format!("answers, up to {most:.0}/s"));
    let mut below = vec![0.0; rates.len()];
    for (number, (name, colour)) in ANSWERS.into_iter().enumerate() {
        let y = |rate: f64| top + PLOT - PLOT * rate / most;
        let above: Vec<f64> = below.iter().zip(&rates).map(|(below, (_, rates))| below + rates[number]).collect();
        let mut path = String::new();
        let upper = rates.iter().zip(&above).map(|((at, _), rate)| (x.at(*at), y(*rate)));
        let lower = rates.iter().zip(&below).rev().map(|((at, _), rate)| (x.at(*at), y(*rate)));
        for (number, (x, y)) in upper.chain(lower).enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' });
        }
        let _ = write!(svg, "<path d=\"{path}Z\" fill=\"{colour}\"/>");
        let y = top + 30.0 + 15.0 * number as f64;
        let _ = write!(svg, "<rect x=\"20\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9.0);
        text(svg, 36.0, y, "start", name);
        below = above;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load::Sums, plan::Fault};

    #[test]
    fn everything_is_in_the_picture() {
        let sample = |second: u64, lag| Sample {
            at: Duration::from_secs(second),
            lag: [("r1".to_owned(), lag)].into(),
            sums: Sums { by_replica: 100 * second, writes: 50 * second, ..Sums::default() },
        };
        let samples = [sample(0, Some(Duration::ZERO)), sample(1, None), sample(2, Some(Duration::from_secs(2)))];
        let injected = [Injected { fault: Fault::Flush, from: Duration::from_secs(1), until: Duration::from_secs(2) }];
        let picture = draw(&samples, &injected, Duration::from_secs(2));
        for part in ["<svg ", "Redis emptied", "lag, up to 2.0 s", ">r1</text>", "answers, up to 150/s", "</svg>"] {
            assert!(picture.contains(part), "{part} in {picture}");
        }
    }

    #[test]
    fn an_empty_run_has_a_picture() {
        assert!(draw(&[], &[], Duration::ZERO).ends_with("</svg>\n"));
    }
}
