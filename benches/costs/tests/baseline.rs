//! No request allocates more than it did: `cargo run --release -p ryw-costs -- --update` commits to new counts.

use ryw_costs::{baseline, counts};

#[test]
fn no_request_allocates_more_than_was_committed() {
    let (now, committed) = (counts::allocations().unwrap(), baseline::committed().unwrap());
    let found = baseline::regressions(&now, &committed);
    assert!(found.is_empty(), "{found:#?}");
    assert!(now["passthrough"].allocations < 0.01, "what needs nothing costs no memory");
}
