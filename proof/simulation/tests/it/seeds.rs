//! A seed is the same run each time, the control is always caught, and seeds that were red once stay green.

use ryw_simulation::run;

/// Seeds that have found something, one a line, and what it was.
const MUSEUM: &str = include_str!("../../SEEDS");

/// What the command says about twenty seeds, over so many threads.
fn hash(threads: &str) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_simulate"));
    let output = command.args(["--seeds", "20", "--threads", threads]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find(|line| line.starts_with("histories")).unwrap().to_owned()
}

#[test]
fn a_seed_is_the_same_run_whatever_else_runs() {
    for seed in 1..=3 {
        let (one, again) = (run(seed, None).unwrap(), run(seed, None).unwrap());
        assert!(one.history.len() > 100_000, "{}", one.history.len());
        assert!(one.history == again.history, "seed {seed}");
    }
    assert_eq!(hash("1"), hash("3"));
}

#[test]
fn what_was_red_once_is_green() {
    let seeds = MUSEUM.lines().filter_map(|line| line.split('#').next()?.trim().parse::<u64>().ok());
    let mut count = 0;
    for seed in seeds {
        let outcome = run(seed, None).unwrap();
        assert!(outcome.control_was_caught, "seed {seed}: the session without a guard saw nothing stale");
        assert_eq!(outcome.violations, [], "seed {seed}");
        count += 1;
    }
    assert!(count > 0);
}
