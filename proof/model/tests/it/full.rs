//! Larger worlds: a few minutes in release.

use ryw_model::Bounds;

use crate::{holds, is_full};

const SMALL: Bounds = Bounds::new();

#[test]
fn all_at_once() {
    if is_full() {
        let bounds = Bounds { tokens: true, ..SMALL.requests(2, 2).clients(1, 2).failovers(1, 1).losses(1, 0) };
        holds(
            "all at once",
            bounds,
            13_226_335,
            &["a wait", "a lost write", "a loss is acknowledged", "a loss of the store", "a node is"],
        );
    }
}

#[test]
fn two_instances() {
    if is_full() {
        let bounds =
            Bounds { instances: 2, tokens: true, ..SMALL.requests(2, 1).clients(1, 2).failovers(1, 0).losses(1, 0) };
        holds("two instances, and a loss of the store", bounds, 1_337_758, &["a lost write", "a loss of the store"]);
    }
}
