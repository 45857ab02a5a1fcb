//! The headline for the project's README.

use std::{error::Error, fs, path::PathBuf};

use crate::report::{Section, goals};

const BEGIN: &str = "<!-- bench: written by ./bench --readme -->";
const END: &str = "<!-- /bench -->";

/// What is shown there.
pub fn headline(machine: &str, sections: &[Section]) -> String {
    format!("{}\n{machine} [All tables and drawings](docs/bench/README.md).\n", goals(sections))
}

/// Puts it there.
pub fn put(headline: &str) -> Result<(), Box<dyn Error>> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "README.md"].iter().collect();
    let text = fs::read_to_string(&path)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or("README.md has no place for the headline")?;
    Ok(fs::write(path, format!("{before}{BEGIN}\n{headline}{END}{after}"))?)
}
