use ryw_model::{Mutant, Ryw};
use stateright::Checker;

use crate::{counterexample, is_full, search};

/// By breadth and on one thread, so that what is found is shortest.
fn is_found(mutant: Mutant) {
    let Some((broken, steps)) = counterexample(&search(Ryw::mutated(mutant), 1)) else {
        panic!("{mutant:?} was not found");
    };
    println!("{mutant:?}: {} steps until {broken}: {}", steps.len(), steps.join(" "));
}

fn is_right(mutant: Mutant) {
    let right = search(Ryw::instead_of(mutant), 2);
    assert_eq!(counterexample(&right), None, "without {mutant:?}");
    println!("without {mutant:?}: {} states", right.unique_state_count());
}

/// Those with hundreds of thousands of states are left to the full run.
fn is_quick(mutant: &Mutant) -> bool {
    is_full() || !matches!(mutant, Mutant::MergesByNumber | Mutant::NoFence)
}

#[test]
fn each_wrong_protocol_is_found() {
    Mutant::ALL.into_iter().filter(is_quick).for_each(is_found);
}

/// In the same worlds, also from the same beginnings.
#[test]
fn where_it_is_found_the_right_one_holds() {
    Mutant::ALL.into_iter().filter(is_quick).for_each(is_right);
}
