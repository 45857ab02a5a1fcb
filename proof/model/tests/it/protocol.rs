use ryw_model::Bounds;

use crate::holds;

const SMALL: Bounds = Bounds::new();

#[test]
fn everything_that_must_be_possible_is() {
    let bounds = Bounds { tokens: true, ..SMALL.requests(3, 1).failovers(1, 0).losses(1, 0) };
    let possible =
        ["a wait", "the primary serves", "a lost write", "a loss is acknowledged", "a loss of the store", "a node is"];
    holds("a failover and a loss of the store", bounds, 13_638, &possible);
}

#[test]
fn commits_that_wait_for_a_replica() {
    let bounds = Bounds { synchronous: true, ..SMALL.requests(2, 1).clients(2, 1).failovers(1, 0) };
    holds("synchronous", bounds, 24_033, &["a wait", "the primary serves", "a lost write", "a node is"]);
}

#[test]
fn messages() {
    let mut bounds = Bounds { tokens: true, ..SMALL.requests(1, 1).clients(2, 1).failovers(1, 0) };
    bounds.left.messages = 1;
    holds("messages", bounds, 9_061, &["a lost write"]);
}

#[test]
fn writes_whose_clients_give_up() {
    let mut bounds = SMALL.requests(1, 1).clients(1, 2).failovers(1, 0);
    bounds.left.cancels = 1;
    holds("given up", bounds, 9_678, &["the primary serves", "a node is"]);
}

#[test]
fn two_instances_that_hear_of_a_failover_at_different_times() {
    let mut bounds = Bounds { instances: 2, ..SMALL.requests(1, 1).clients(1, 2).failovers(1, 0) };
    bounds.left.cancels = 1;
    holds("two instances", bounds, 60_254, &["the primary serves", "a node is"]);
}

#[test]
fn replicas_that_begin_again() {
    let bounds = SMALL.requests(2, 1).clients(1, 2).failovers(1, 1);
    holds("rebuilds", bounds, 117_435, &["a wait", "the primary serves", "a lost write", "a node is"]);
}
