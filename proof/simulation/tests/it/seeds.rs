//! Seed 1 is the same run each time, the control is always caught, and seeds that were red once stay green.

use ryw_simulation::run;

/// Seeds that have found something, one a line, and what it was.
const MUSEUM: &str = include_str!("../../SEEDS");

/// A seed of which that is known to hold; not all do, see docs/PROOF.md.
#[test]
fn seed_1_is_always_the_same_run() {
    let folder = std::env::temp_dir();
    let history = |seed: u64, time: u32| {
        let file = folder.join(format!("ryw-simulation-{}-{seed}-{time}", std::process::id()));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_simulate"));
        let status = command.args(["--first", &seed.to_string(), "--seeds", "1", "--history"]).arg(&file).output();
        assert!(status.is_ok());
        let history = std::fs::read(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        history
    };
    let one = history(1, 1);
    assert!(one.len() > 100_000, "{}", one.len());
    assert!(one == history(1, 2));
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
