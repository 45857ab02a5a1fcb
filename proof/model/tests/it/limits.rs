//! What is known not to hold, so that it is said where it is documented.

use ryw_model::{Bounds, Ryw};

use crate::{counterexample, search};

#[track_caller]
fn breaks(name: &str, bounds: Bounds, expected: &str) {
    let (broken, steps) = counterexample(&search(Ryw::new(bounds), 1)).expect(name);
    println!("{name}: {} steps until {broken}: {}", steps.len(), steps.join(" "));
    assert_eq!(broken, expected, "{name}");
}

/// "A loss among forgotten marks", in ARCHITECTURE.md: the client's token is what tells it.
#[test]
fn a_store_that_is_lost_along_with_a_write_while_clients_carry_nothing() {
    let bounds = Bounds::new().requests(1, 1).failovers(1, 0).losses(1, 0);
    breaks("no token", bounds, "a loss is told");
}
