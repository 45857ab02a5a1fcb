//! Corrupted histories: a consistent one, damaged in a way that breaks a promise, must be found; damage that means nothing
//! must not.

use ryw_check::{History, Options, check};

use crate::generate::{Case, F, Op, text};

/// A consistent history of one list: every read shows the whole list, all in sequence.
fn consistent(rng: &mut fastrand::Rng) -> Case {
    let mut case = Case::default();
    for id in 1..=rng.i64(8..30) {
        let write = id < 3 || rng.bool();
        let inv = id as u64 * 10;
        if write {
            case.list.push(id);
        }
        let (f, val) = if write { (F::Write, Vec::new()) } else { (F::Read, case.list.clone()) };
        let (ret, level) = (Some(inv + rng.u64(0..9)), "STRONG");
        case.ops.push(Op { id, s: rng.usize(..3), f, key: 0, v: id, val, inv, ret, out: "ok", msg: 0, level });
    }
    case
}

fn violated(case: &Case) -> bool {
    !check(&History::parse(&text(case)).unwrap(), &Options::default()).violations.is_empty()
}

/// Applies `damage` to 300 histories; it says whether it could be applied. Returns how many were damaged, and found.
fn trial(mut damage: impl FnMut(&mut Case, &mut fastrand::Rng) -> Option<()>) -> (u32, u32) {
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut damaged, mut found) = (0, 0);
    for _ in 0..300 {
        let mut case = consistent(&mut rng);
        assert!(!violated(&case), "{}", text(&case));
        if damage(&mut case, &mut rng).is_some() {
            damaged += 1;
            found += u32::from(violated(&case));
        }
    }
    assert!(damaged > 100, "the damage could be done {damaged} times only");
    (damaged, found)
}

fn reads(case: &Case) -> Vec<usize> {
    (0..case.ops.len()).filter(|at| case.ops[*at].f == F::Read).collect()
}

fn one<T: Copy>(of: &[T], rng: &mut fastrand::Rng) -> Option<T> {
    if of.is_empty() { None } else { Some(of[rng.usize(..of.len())]) }
}

#[track_caller]
fn all((damaged, found): (u32, u32)) {
    assert_eq!(found, damaged);
}

#[test]
fn swapped_reads() {
    all(trial(|case, rng| {
        let (a, b) = (one(&reads(case), rng)?, one(&reads(case), rng)?);
        let (first, second) = (case.ops[a].val.clone(), case.ops[b].val.clone());
        (case.ops[a].val, case.ops[b].val) = (second.clone(), first.clone());
        (first != second).then_some(())
    }));
}

#[test]
fn deleted_elements() {
    all(trial(|case, rng| {
        let at = one(&reads(case), rng)?;
        let from = rng.usize(..case.ops[at].val.len());
        case.ops[at].val.remove(from);
        Some(())
    }));
}

#[test]
fn deleted_from_the_final_list() {
    all(trial(|case, rng| {
        case.list.remove(rng.usize(..case.list.len()));
        Some(())
    }));
}

#[test]
fn foreign_and_repeated_elements() {
    all(trial(|case, rng| {
        let at = one(&reads(case), rng)?;
        case.ops[at].val.push(999);
        Some(())
    }));
    all(trial(|case, rng| {
        let at = one(&reads(case), rng)?;
        let again = case.ops[at].val[0];
        case.ops[at].val.push(again);
        Some(())
    }));
}

#[test]
fn exchanged_elements() {
    all(trial(|case, rng| {
        let at = one(&reads(case), rng)?;
        case.ops[at].val.swap(0, 1);
        Some(())
    }));
}

#[test]
fn an_acknowledgement_moved_before_a_read_that_lacks_it() {
    all(trial(|case, rng| {
        let writes: Vec<usize> =
            (1..case.ops.len()).filter(|at| case.ops[*at].f == F::Write && case.ops[at - 1].f == F::Read).collect();
        let at = one(&writes, rng)?;
        let before = case.ops[at - 1].inv;
        (case.ops[at].inv, case.ops[at].ret) = (before - 2, Some(before - 1));
        Some(())
    }));
}

#[test]
fn a_success_called_a_failure() {
    all(trial(|case, rng| {
        let at = one(&(0..case.ops.len()).filter(|at| case.ops[*at].f == F::Write).collect::<Vec<_>>(), rng)?;
        case.ops[at].out = "fail";
        Some(())
    }));
}

#[test]
fn a_reset_that_was_dropped() {
    all(trial(|case, rng| {
        let lost = case.list.pop()?;
        let writer = case.ops.iter().position(|op| op.v == lost && op.f == F::Write)?;
        for op in &mut case.ops {
            op.val.retain(|v| *v != lost);
        }
        let (s, inv) = (case.ops[writer].s, case.ops[writer].inv + 9);
        let reset = Op {
            id: 500,
            s,
            f: F::Read,
            val: case.list.clone(),
            inv,
            ret: Some(inv),
            out: "reset",
            ..case.ops[writer].clone()
        };
        let mut told = case.clone();
        told.ops.push(reset);
        let _ = rng;
        assert!(!violated(&told), "{}", text(&told));
        Some(())
    }));
}

#[test]
fn what_means_nothing_is_not_found() {
    let (damaged, found) = trial(|case, rng| {
        rng.shuffle(&mut case.ops);
        for (id, op) in case.ops.iter_mut().enumerate() {
            (op.id, op.inv, op.ret) = (id as i64, op.inv + 1000, op.ret.map(|ret| ret + 1000));
        }
        Some(())
    });
    assert_eq!((found, damaged), (0, 300));
    let (_, found) = trial(|case, rng| {
        let at = one(&reads(case), rng)?;
        case.ops[at].level = "EVENTUAL";
        case.ops[at].val.pop();
        Some(())
    });
    assert_eq!(found, 0);
}
