//! The same seed is the same run, the control is always caught, and seeds that were red once stay green.

use ryw_simulation::run;

/// Seeds that have found something, one a line, and what it was.
const MUSEUM: &str = include_str!("../../SEEDS");

#[test]
fn the_same_seed_is_the_same_run() {
    let mut hashes = Vec::new();
    for seed in 1..4 {
        let [one, two] = [run(seed, None), run(seed, None)].map(Result::unwrap);
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert!(one.ops > 500, "{}", one.ops);
        hashes.push(one.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 3, "another seed is another run");
}

#[test]
fn runs_on_other_threads_change_nothing() {
    let expected = run(5, None).unwrap().hash;
    let others: Vec<_> = (4..7).map(|seed| std::thread::spawn(move || run(seed, None).unwrap().hash)).collect();
    let hashes: Vec<u64> = others.into_iter().map(|other| other.join().unwrap()).collect();
    assert_eq!(hashes[1], expected);
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
