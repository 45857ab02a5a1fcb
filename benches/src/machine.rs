//! What all of this has run on.

use std::{fs, thread};

/// In a sentence.
pub fn description(quick: bool) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let model = model.map_or("an unknown processor", str::trim);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next());
    let memory: u64 = memory.and_then(|kib| kib.parse().ok()).unwrap_or(0) / 1024 / 1024;
    let system = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let how = if quick { " A quick run: the figures are rough." } else { "" };
    format!("Measured on {processors} × {model}, {memory} GiB, Linux {}; load at the end: {load}.{how}", system.trim())
}
