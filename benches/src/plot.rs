//! Drawings, as SVG that reads on light and on dark pages.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const COLOURS: [&str; 7] = ["#d4572a", "#2a78d4", "#3a9d5d", "#8a5bc7", "#b8860b", "#4a9aa8", "#888888"];
/// Readable on white and on black.
const INK: &str = "#7a7f87";

/// Names and points of lines.
pub type Series = Vec<(String, Vec<(f64, f64)>)>;

/// Lines over an axis, with a legend.
#[derive(Debug)]
pub struct Lines {
    /// Above.
    pub title: String,
    /// Below, with the unit.
    pub x: &'static str,
    /// Beside, with the unit.
    pub y: &'static str,
    /// Whether the axis below is logarithmic.
    pub log_x: bool,
    /// Name and points of each.
    pub series: Series,
}

/// Bars, from the left, with their values.
#[derive(Debug)]
pub struct Bars {
    /// Above.
    pub title: String,
    /// Of the values.
    pub unit: &'static str,
    /// Label, value, and whether it is to stand out.
    pub bars: Vec<(String, f64, bool)>,
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, extra: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    // Writing to a String does not fail.
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {extra}>{text}</text>"#);
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), extra: &str) {
    let _ = writeln!(svg, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" {extra}/>"#);
}

fn framed(height: f64, title: &str, body: &str) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">
"#
    );
    text(&mut svg, (16.0, 26.0), "start", r#"font-size="16" font-weight="600""#, title);
    svg.push_str(body);
    svg.push_str("</svg>\n");
    svg
}

/// Round steps that cover everything from 0 to `max`.
fn steps(max: f64) -> Vec<f64> {
    let rough = (max / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let count = (max / step).ceil() as u32;
    (0..=count).map(|number| f64::from(number) * step).collect()
}

fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", value / 1e6),
        1e4.. => format!("{} k", value / 1e3),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

impl Lines {
    /// The drawing.
    pub fn svg(&self) -> String {
        let (left, top, bottom) = (74.0, 46.0, 330.0);
        let right = WIDTH - 190.0;
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let place = |x: f64| if self.log_x { x.log10() } else { x };
        let (from, to) =
            points().fold((f64::MAX, f64::MIN), |(from, to), (x, _)| (from.min(place(*x)), to.max(place(*x))));
        let ticks = steps(points().map(|(_, y)| *y).fold(0.0, f64::max));
        let max = ticks.last().copied().unwrap_or(1.0);
        let at = |(x, y): (f64, f64)| {
            let along = (place(x) - from) / (to - from).max(f64::MIN_POSITIVE);
            (left + (right - left) * along, bottom - (bottom - top) * y / max)
        };
        let mut svg = String::new();
        for tick in ticks {
            let (_, y) = at((1.0, tick));
            line(&mut svg, (left, y), (right, y), &format!(r#"stroke="{INK}" stroke-opacity="0.25""#));
            text(&mut svg, (left - 8.0, y + 4.0), "end", "", &short(tick));
        }
        let mut labelled: Vec<f64> = points().map(|(x, _)| *x).collect();
        labelled.sort_by(f64::total_cmp);
        labelled.dedup();
        for x in labelled {
            let (place, _) = at((x, 0.0));
            text(&mut svg, (place, bottom + 18.0), "middle", "", &short(x));
            line(&mut svg, (place, bottom), (place, bottom + 4.0), &format!(r#"stroke="{INK}""#));
        }
        line(&mut svg, (left, bottom), (right, bottom), &format!(r#"stroke="{INK}""#));
        text(&mut svg, (f64::midpoint(left, right), bottom + 40.0), "middle", "", self.x);
        let middle = f64::midpoint(top, bottom);
        text(&mut svg, (18.0, middle), "middle", &format!(r#"transform="rotate(-90 18 {middle})""#), self.y);
        for (number, (name, points)) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let path: Vec<_> = points.iter().map(|point| at(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let width = if number == 0 { 2.5 } else { 1.5 };
            let path = path.join(" ");
            let _ =
                writeln!(svg, r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>"#);
            for (x, y) in points.iter().map(|point| at(*point)) {
                let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
            }
            let y = top + 10.0 + 20.0 * number as f64;
            line(
                &mut svg,
                (right + 16.0, y),
                (right + 38.0, y),
                &format!(r#"stroke="{colour}" stroke-width="{width}""#),
            );
            text(&mut svg, (right + 46.0, y + 4.0), "start", "", name);
        }
        framed(384.0, &self.title, &svg)
    }
}

impl Bars {
    /// The drawing.
    pub fn svg(&self) -> String {
        let (left, top, height) = (290.0, 46.0, 24.0);
        let right = WIDTH - 90.0;
        let max = self.bars.iter().map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let mut svg = String::new();
        for (number, (label, value, stands_out)) in self.bars.iter().enumerate() {
            let y = top + height * number as f64;
            let width = (right - left) * value.max(0.0) / max;
            let colour = if *stands_out { COLOURS[0] } else { COLOURS[1] };
            text(&mut svg, (left - 10.0, y + 14.0), "end", "", label);
            let _ = writeln!(
                svg,
                r#"<rect x="{left}" y="{:.1}" width="{:.1}" height="16" rx="2" fill="{colour}"/>"#,
                y + 2.0,
                width.max(1.0)
            );
            let shown = format!("{} {}", crate::report::number(value.round()), self.unit);
            text(&mut svg, (left + width + 8.0, y + 14.0), "start", "", &shown);
        }
        framed(top + height * self.bars.len() as f64 + 16.0, &self.title, &svg)
    }
}
