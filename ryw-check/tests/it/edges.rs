//! Hand-written histories for what is decided in few of them: each says what one line of the checker is there for.

use crate::lines::{checked, each_has_exactly_its_violations, found};

/// Name, history, violations.
const ORDER: &[(&str, &str, &str)] = &[
    (
        "snapshots agree where a list on another branch shows what survived",
        "1 a append j 9 0-10; 2 b append k 5 0-10 info; 3 c append k 1 0-10; 4 d snap j+k 9+5,1 1-9 @STRONG; \
         5 e snap j+k []+1 1-9 @STRONG; 6 a read k 1 11-12 reset; 7 x final j 9 20-20; 8 x final k 1 20-20",
        "",
    ),
    (
        "a final row that lags comes first",
        "1 a put r 1 0-1 v1; 2 b put r 2 2-3 v2; 3 x final r 1 9-9; 4 x final r 2 9-9",
        "",
    ),
    (
        "the first of two final rows is named",
        "1 a put r 1 0-1 v1; 2 b put r 2 2-3 v2; 3 x final r 1 9-9; 4 x final r 1 9-9",
        "LOST 2 3",
    ),
];

#[test]
fn the_order_of_versions() {
    each_has_exactly_its_violations(ORDER);
}

const SWEEP: &[(&str, &str, &str)] = &[
    (
        "a message arrived whose sender never heard so",
        "1 a append k 1 0-1; 2 a send - - 2- m1 info; 3 b recv - - 3-4 m1; 4 b read k [] 5-6 @CAUSAL; 5 x final k 1 9-9",
        "CAUSAL 1 2 3 4",
    ),
    (
        "what was there before a register was written is owed to each of its readers",
        "1 a append k 1 0-1; 2 a put r 5 2-3; 3 b read r 5 4-5; 4 c read r 5 6-7; 5 c read k [] 8-9 @SESSION; 6 x final k 1 19-19",
        "MW 1 2 4 5",
    ),
];

#[test]
fn what_flows_through_time() {
    each_has_exactly_its_violations(SWEEP);
}

const JUDGED: &[(&str, &str, &str)] = &[
    (
        "a list on another branch lacks an own write that survived",
        "1 a append k 1 0-1; 2 b append k 5 0-1 info; 3 a read k 5 2-3; 4 b read j [] 4-5 reset; 5 x final k 1 9-9",
        "RYW 1 3",
    ),
    (
        "a list on another branch does not owe what its session was told is lost",
        "1 a append k 5 0-1; 2 b append k 6 0-1 info; 3 a read k [] 2-3 reset; 4 a read k 6 4-5; 5 c read j [] 6-7 reset; 6 x final k [] 9-9",
        "",
    ),
    (
        "a list on another branch lacks what was written before something that its session has seen",
        "1 a append k 1 0-1; 2 a append j 2 2-3; 3 c append k 5 0-1 info; 4 b read j 2 4-5; 5 b read k 5 6-7 @SESSION; \
         6 c read i [] 8-9 reset; 7 x final k 1 19-19; 8 x final j 2 19-19",
        "MW 1 2 4 5",
    ),
    (
        "not to show a row that survived a loss is stale",
        "1 a put r 1 0-1 v1; 2 a put r 2 2-3 v2; 3 b read q null 4-5 reset; 4 c read r 1 6-7 @STRONG; 5 x final r 2 9-9",
        "STALE 2 4",
    ),
    (
        "a row that may be lost is not stale",
        "1 a put r 1 0-1 v1; 2 a put r 2 2-3 v2; 3 b read q null 4-5 reset; 4 c read r 1 6-7 @STRONG; 5 b put r 3 8-9 v3; 6 x final r 3 19-19",
        "",
    ),
    (
        "what was read right after a reset is owed, though something newer was read before it",
        "1 a put r 1 0-1 v1; 2 b put r 2 0-1 v2; 3 b put r 5 2-3 v5; 4 c read r 5 4-5; 5 c read q null 6-7 reset; \
         6 c read r 2 8-9 @MONOTONIC; 7 c read r 1 10-11 @MONOTONIC; 8 d put r 7 12-13 v7; 9 x final r 7 19-19",
        "MR 6 7",
    ),
    (
        "without an order nothing is owed once something may be lost",
        "1 a put r 1 0-1; 2 b put r 2 0-1; 3 a read q null 2-3 reset; 4 b read r null 4-5",
        "",
    ),
];

#[test]
fn what_is_judged() {
    each_has_exactly_its_violations(JUDGED);
    assert_eq!(checked(JUDGED[0].1).temptations, 1);
}

#[test]
fn each_kind_says_what_is_missing() {
    let link = "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b read j 1 2-3; 4 b append i 3 4-5; 5 a send - - 6-7 m1; 6 c recv - - 8-9 m1";
    let end = "50 x final i 3 90-90; 51 x final j 1 90-90; 52 x final k 2 90-90";
    for (read, violation, why) in [
        ("7 a read k [] 10-11", "RYW 2 7", "key k: a read does not show an earlier write of its session"),
        (
            "7 b read j [] 10-11 @MONOTONIC",
            "MR 3 7",
            "key j: a read does not show what an earlier read of its session showed",
        ),
        (
            "7 d snap j+k []+2 10-11 @SESSION",
            "MW 1 2 7",
            "key j: a read shows a write without an earlier one of the same session",
        ),
        (
            "7 d snap i+j 3+[] 10-11 @SESSION",
            "WFR 3 4 7",
            "key j: a read shows a write without what its session had read before",
        ),
        ("7 c read k [] 10-11 @CAUSAL", "CAUSAL 2 5 6 7", "key k: a read does not show what a message carried"),
    ] {
        let lines = format!("{link}; {read}; {end}");
        assert_eq!(found(&lines), violation);
        assert_eq!(checked(&lines).violations[0].why, why);
    }
}

const INTEGRITY: &[(&str, &str, &str)] = &[
    ("one value is read with its row version", "1 a put r 1 0-1 v1; 2 b read r 1 2-3 v1", ""),
    ("a snapshot that failed proves nothing", "1 a append k 1 0-1; 2 a snap k [] 2-3 fail; 3 x final k 1 9-9", ""),
    (
        "each branch is a fork once",
        "1 a append k 1 0-9; 2 b append k 2 0-9; 3 c append k 3 0-9; 4 d append k 4 0-9; 5 e read k 2 1-9; 6 f read k 3 1-9; \
         7 g read k 3,4 1-9; 8 x final k 1,2,3,4 20-20",
        "FORK 8 5|FORK 8 6",
    ),
];

#[test]
fn what_needs_no_clocks() {
    each_has_exactly_its_violations(INTEGRITY);
}

const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "a message explains nothing of what was promised without messages",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 a send - - 4-5 m1; 4 b recv - - 6-7 m1; 5 b read k 2 8-9; 6 b read j [] 10-11 @SESSION; \
         7 x final j 1 19-19; 8 x final k 2 19-19",
        "MW 1 2 5 6",
    ),
    (
        "a session learns of a cause by the first operation that could tell",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b read k 2 4-5; 4 b snap j+k []+2 6-7 @SESSION; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "MW 1 2 3 4",
    ),
];

#[test]
fn what_lies_between_cause_and_failure() {
    each_has_exactly_its_violations(EXPLAINED);
}

#[test]
fn the_share_of_replicas() {
    let primary = "1 a append k 1 0-1 n1 e1; 2 a append k 2 2-3 n2 e1 fail; 3 a append k 3 4-5 e1";
    for (reads, share) in [
        ("", 0.0),
        ("4 a read k 1 6-7 n1 e1", 0.0),
        ("4 a read k 1 6-7 n2 e1", 1.0),
        ("4 a read k 1 6-7 n1 e2", 1.0),
        ("4 a read k 1 6-7 n1", 1.0),
        ("4 a read k 1 6-7", 0.0),
        ("4 a read k 1 6-7 n2; 5 a read k 1 6-7; 6 a read k 1 6-7 n1 e1 fail", 1.0),
        ("4 a read k 1 6-7 n1 e1; 5 x final k 1,3 9-9 n2", 0.0),
        ("4 a snap k 1 6-7 n1 e1; 5 a read k 1 6-7 n2; 6 a read k 1 6-7 n3; 7 a read k 1 6-7 n4", 0.75),
    ] {
        let found = checked(&format!("{primary}; {reads}")).replica_share;
        assert!((found - share).abs() < 1e-9, "{reads}: {found}");
    }
}

#[test]
fn operations_per_second() {
    for (lines, rate) in [
        ("", 0.0),
        ("1 x final k [] 5-9", 0.0),
        ("1 a append k 1 0-1000000000", 1.0),
        (
            "1 a append k 1 1000000000-2000000000; 2 a append k 2 1000000000-3000000000; 3 x final k 1,2 9-9000000000",
            1.0,
        ),
        ("1 a append k 1 0-1; 2 a append k 2 500000000- info", 4.0),
        ("1 a append k 1 7-7", 1e9),
    ] {
        let found = checked(lines).rate;
        assert!((found - rate).abs() < 1e-6, "{lines}: {found}");
    }
}

#[test]
fn so_many_circles_are_followed() {
    let circle = |n: u32| format!("{} s{n} read k{n} 1 0-1; {} s{n} append k{n} 1 2-3;", 2 * n, 2 * n + 1);
    let all: String = (0..65).map(circle).collect();
    let kinds: Vec<String> = checked(&all).violations.iter().map(|violation| violation.kind.to_string()).collect();
    assert_eq!(kinds[..64], ["CYCLE"; 64]);
    assert_eq!(kinds[64..], ["THIN_AIR"]);
}
