//! The demo finds stale reads without the layer and none with it; or says that it
//! has proved nothing.

use std::time::Duration;

use ryw_testing::servers::postgres::{Cluster, Standby};

use crate::{
    leftovers::Playground,
    program::{Finished, command, finish},
};

/// A row of the table.
#[derive(Debug)]
struct Row {
    writes: u64,
    reads: u64,
    stale: u64,
}

fn row(finished: &Finished, name: &str) -> Row {
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no row {name:?}: {finished:?}"));
    let mut numbers = line.split_whitespace().map(|number| number.parse().expect("a count"));
    let mut next = || numbers.next().expect("a column");
    Row { writes: next(), reads: next(), stale: next() }
}

fn assert_clean(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let [naive, window, ours] = ["no layer", "2 s window", "tower-ryw "].map(|name| row(finished, name));
    assert!(naive.stale > 0 && naive.stale < naive.reads, "{finished:?}");
    assert_eq!(ours.stale, 0, "{finished:?}");
    for row in [&naive, &window, &ours] {
        assert!(row.writes > 0 && row.reads > row.writes, "{row:?} of {finished:?}");
    }
    // How near it comes to the oracle is a matter of time; tests on a paused clock and on paused replicas check that.
    assert!(finished.stdout.contains("tower-ryw differs from it by "), "{finished:?}");
    assert!(finished.stdout.contains("clean: "), "{finished:?}");
}

#[tokio::test]
async fn embedded() {
    assert_clean(&finish(command(&["demo", "--seconds", "3"])).await);
}

#[tokio::test]
async fn with_too_little_to_see_it_is_void_and_says_why() {
    assert_void(&finish(command(&["demo", "--min-stale", "1000000", "--seconds", "1"])).await, "1000000");
}

fn assert_void(finished: &Finished, fewer_than: &str) {
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let explanation = finished.stdout.lines().find(|line| line.starts_with("void: ")).expect("an explanation");
    assert!([fewer_than, "--lag-ms", "--seconds"].iter().all(|part| explanation.contains(part)), "{explanation}");
}

#[tokio::test]
async fn postgres_of_its_own() {
    let playground = Playground::new();
    let flags = ["demo", "--postgres", "--seconds", "4"];
    assert_clean(&finish(playground.command(&flags)).await);
    playground.assert_empty().await;
}

#[tokio::test]
async fn postgres_of_the_user() {
    let late = Standby::named("late").apply_delay(Duration::from_millis(100));
    let cluster = Cluster::builder().standby(Standby::named("near")).standby(late).start().unwrap();
    let [primary, near, late] = ["primary", "near", "late"].map(|name| cluster.server(name).unwrap().url());
    let nodes = ["--primary", &primary, "--replica", &near, "--replica", &late];
    let flags = [&["demo", "--seconds", "3"], &nodes[..]].concat();
    assert_clean(&finish(command(&flags)).await);
    assert_eq!(cluster.primary().psql("select count(*) > 0 from memory").unwrap(), "t");
}
