//! The model, searched.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod full;
mod limits;
mod mutants;
mod protocol;

use std::time::Instant;

use ryw_model::{ALWAYS, Bounds, Ryw};
use stateright::{Checker, HasDiscoveries, Model};

/// `RYW_MODEL_FULL=1`, in release: the larger worlds too.
fn is_full() -> bool {
    std::env::var_os("RYW_MODEL_FULL").is_some()
}

/// All states, by breadth; stops at what must never happen.
fn search(model: Ryw, threads: usize) -> impl Checker<Ryw> {
    let wrong = HasDiscoveries::AnyOf(ALWAYS.into());
    model.checker().threads(threads).finish_when(wrong).spawn_bfs().join()
}

/// What must never happen, and the shortest way to it.
fn counterexample(checker: &impl Checker<Ryw>) -> Option<(&'static str, Vec<String>)> {
    let found = ALWAYS.iter().filter_map(|name| Some((*name, checker.discovery(name)?.into_actions())));
    let (name, actions) = found.min_by_key(|(_, actions)| actions.len())?;
    Some((name, actions.iter().map(|action| format!("{action:?}")).collect()))
}

/// Nothing that must never happen does; what can happen here is `possible`, by the first words of its name.
fn holds(name: &str, bounds: Bounds, states: usize, possible: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "only printed")]
    let begun = Instant::now();
    let checker = search(Ryw::new(bounds), 2);
    assert_eq!(counterexample(&checker), None, "{name}");
    let happens = |name: &str| checker.discovery(checker.model().property(name_of(&checker, name)).name).is_some();
    for wanted in possible {
        assert!(happens(wanted), "{name}: never {wanted}");
    }
    println!(
        "{name}: {} states, {} steps deep, {:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    assert_eq!(checker.unique_state_count(), states, "{name}");
}

/// The property whose name begins so.
fn name_of(checker: &impl Checker<Ryw>, begin: &str) -> &'static str {
    let all = checker.model().properties();
    all.iter().map(|property| property.name).find(|name| name.starts_with(begin)).unwrap()
}
