//! What was measured, as Markdown and as JSON.

use std::fmt::{self, Write};

use serde::Serialize;

/// Everything about one question.
#[derive(Debug, Default, Serialize)]
pub struct Section {
    /// Its name in files and on the command line.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// How it was measured.
    pub text: String,
    /// What came of it.
    pub tables: Vec<Table>,
    /// How that compares with what was aimed at.
    pub goals: Vec<Goal>,
    /// File names and drawings.
    #[serde(skip)]
    pub plots: Vec<(String, String)>,
}

/// One table.
#[derive(Debug, Serialize)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// One cell of a table.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number.
    Number(f64),
    /// A number that was measured several times.
    Spread(Spread),
}

/// The middle of many measurements.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// Half of them are below.
    pub median: f64,
    /// A quarter of them is below.
    pub low: f64,
    /// A quarter of them is above.
    pub high: f64,
}

/// What was aimed at, and what was reached.
#[derive(Debug, Serialize)]
pub struct Goal {
    /// What it is about.
    pub what: &'static str,
    /// What was aimed at.
    pub goal: &'static str,
    /// What was reached.
    pub measured: String,
    /// Whether that is enough.
    pub met: bool,
    /// Where it is not: why.
    pub why: &'static str,
}

impl Spread {
    /// Of these.
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all.get(((all.len().max(1) - 1) as f64 * share).round() as usize).copied();
        let at = |share| at(share).unwrap_or(f64::NAN);
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

impl Table {
    /// An empty one.
    pub fn new<const N: usize>(columns: [&str; N]) -> Self {
        Self { columns: columns.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// One more row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<f64>> for Cell {
    fn from(number: Option<f64>) -> Self {
        number.map_or_else(|| "–".into(), Self::Number)
    }
}

impl From<Spread> for Cell {
    fn from(spread: Spread) -> Self {
        Self::Spread(spread)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(value) => f.write_str(&number(*value)),
            Self::Spread(Spread { median, low, high }) => {
                write!(f, "{} ({} – {})", number(*median), number(*low), number(*high))
            }
        }
    }
}

/// With as many digits as mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        _ if value.fract() == 0.0 || value.abs() >= 100.0 => grouped(value),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < -0.5 { "-" } else { "" });
    for (place, digit) in (0..digits.len()).rev().zip(digits.chars()) {
        text.push(digit);
        if place > 0 && place % 3 == 0 {
            text.push(' ');
        }
    }
    text
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(self.columns.len().saturating_sub(1)))?;
        for row in &self.rows {
            let cells: Vec<_> = row.iter().map(Cell::to_string).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// The goals of all sections.
pub fn goals(sections: &[Section]) -> String {
    let mut table = Table::new(["what", "goal", "measured", "met", "where not, why"]);
    for Goal { what, goal, measured, met, why } in sections.iter().flat_map(|section| &section.goals) {
        let why = if *met { "" } else { why };
        table.row([
            (*what).into(),
            (*goal).into(),
            measured.clone().into(),
            (if *met { "yes" } else { "**no**" }).into(),
            why.into(),
        ]);
    }
    table.to_string()
}

/// The whole page.
pub fn markdown(machine: &str, sections: &[Section]) -> String {
    let mut page =
        format!("# Speed\n\n{machine}\n\n`./bench` runs all of it again. Numbers in parentheses are quartiles; ");
    page.push_str("what is compared was measured in turns within one run.\n\n## Goals\n\n");
    page.push_str(&goals(sections));
    for Section { title, text, tables, plots, .. } in sections {
        // Writing to a String does not fail.
        let _ = write!(page, "\n## {title}\n\n{text}\n");
        for table in tables {
            let _ = write!(page, "\n{table}");
        }
        for (name, _) in plots {
            let _ = write!(page, "\n![{title}]({name})\n");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        for (value, expected) in
            [(0.123, "0.12"), (1.0, "1"), (12.34, "12.3"), (123.4, "123"), (1_234_567.8, "1 234 568"), (-0.5, "-0.50")]
        {
            assert_eq!(number(value), expected);
        }
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn a_table_in_markdown() {
        let mut table = Table::new(["what", "ns"]);
        table.row(["read".into(), Spread::of(vec![5.0, 1.0, 3.0, 2.0, 4.0]).into()]);
        assert_eq!(table.to_string(), "| what | ns |\n|---|---:|\n| read | 3 (2 – 4) |\n");
    }
}
