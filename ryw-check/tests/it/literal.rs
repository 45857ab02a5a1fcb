//! Hand-written histories, each with the violations it has: kind and witness.

use ryw_check::{History, Options, check};

use crate::lines::{each_has_exactly_its_violations, json};

/// Name, history, violations.
const CASES: &[(&str, &str, &str)] = &[
    ("nothing", "", ""),
    ("ryw kept", "1 a append k 1 0-1; 2 a read k 1 2-3; 3 x final k 1 9-9", ""),
    ("ryw broken", "1 a append k 1 0-1; 2 a read k [] 2-3; 3 x final k 1 9-9", "RYW 1 2"),
    ("ryw at the same instant is concurrent", "1 a append k 1 0-2; 2 a read k [] 2-3; 3 x final k 1 9-9", ""),
    ("ryw of overlapping tabs", "1 a append k 1 0-5; 2 a read k [] 2-3 t1; 3 x final k 1 9-9", ""),
    ("ryw in another tab afterwards", "1 a append k 1 0-1; 2 a read k [] 2-3 t1; 3 x final k 1 9-9", "RYW 1 2"),
    ("ryw of another session", "1 a append k 1 0-1; 2 b read k [] 2-3; 3 x final k 1 9-9", ""),
    (
        "told of more than a message carries",
        "1 x put r 5 0-1 v1; 2 x put r 6 2-3 v2; 3 t read r 5 4-5 v1 t1; 4 t read r 6 7-8 v2 t1; 5 n read k 2 9-10 reset; \
         6 t append k 2 6-11; 7 t read k 2 12-13 reset; 8 t send - 0 14-15 m1; 9 c recv - 0 16-17 m1; \
         10 c send - 0 18-19 m2; 11 n recv - 0 20-21 m2; 12 n put r 7 22-23 v3 @SESSION",
        "",
    ),
    ("ryw of another key", "1 a append k 1 0-1; 2 a read j [] 2-3; 3 x final k 1 9-9", ""),
    ("ryw not promised", "1 a append k 1 0-1; 2 a read k [] 2-3 @EVENTUAL; 3 x final k 1 9-9", ""),
    ("ryw not promised by monotonic", "1 a append k 1 0-1; 2 a read k [] 2-3 @MONOTONIC; 3 x final k 1 9-9", ""),
    (
        "ryw of the older write only",
        "1 a append k 1 0-1; 2 a append k 2 2-3; 3 a read k 1 4-5; 4 x final k 1,2 9-9",
        "RYW 2 3",
    ),
    ("ryw through null", "1 a append k 1 0-1; 2 a read k null 2-3; 3 x final k 1 9-9", "RYW 1 2"),
    ("ryw twice", "1 a append k 1 0-1; 2 a read k [] 2-3; 3 a read k [] 4-5; 4 x final k 1 9-9", "RYW 1 2|RYW 1 3"),
    ("ryw without a final list", "1 a append k 1 0-1; 2 a read k [] 2-3; 3 b read k 1 4-5", "RYW 1 2"),
    ("ryw without a final list, and nobody else has read it", "1 a append k 1 0-1; 2 a read k [] 2-3", "RYW 1 2"),
    ("unread without a final list", "1 a append k 1 0-1; 2 a read k [] 1-2; 3 b read k [] 2-3", ""),
    ("told of a loss without a final list", "1 a append k 1 0-1; 2 a read k [] 2-3 reset; 3 a read k [] 4-5", ""),
    (
        "told of another loss without a final list",
        "1 a append k 1 0-1; 2 b read k 2,3 0-1; 3 c append k 2 0-1; 4 c append k 3 0-1; 5 a read k [] 2-3 reset; 6 a read k 1 4-5; \
         7 c read k 2,3 6-7 reset",
        "",
    ),
    (
        "told of a loss without a final list, of which others had read more",
        "1 a append k 1 0-1; 2 a append k 2 2-3; 3 a read k 1,2 6-7; 4 a read k 1 8-9 reset; 5 a read k 1 12-13 @SESSION",
        "",
    ),
    (
        "another branch after a loss without a final list",
        "1 a append k 1 0-1; 2 a append k 2 2-3; 3 a append k 3 4-5; 4 a read k 1,2,3 6-7; 5 b read k 1 12-13 @EVENTUAL reset; \
         6 c append k 5 14-15; 7 c read k 1,5 16-17 @STRONG; 8 b read k 1,5 18-19 reset; 9 b read k 1,5 20-21",
        "",
    ),
    (
        "not told of a loss without a final list",
        "1 a append k 1 0-1; 2 b read k [] 2-3 reset; 3 a read k [] 4-5; 4 b read k [] 6-7 @STRONG",
        "RYW 1 3",
    ),
    ("strong without a final list", "1 a append k 1 0-1; 2 b read k [] 2-3 @STRONG", "STALE 1 2"),
    (
        "a write under way while another tab is told, without a final list",
        "1 a append k 1 0-1; 2 a append j 2 2-9; 3 a read k [] 4-5 reset; 4 b read j 2 10-11 @SESSION; 5 b read k [] 12-13 @SESSION",
        "",
    ),
    (
        "ryw of a later write on another branch",
        "1 a append k 1 0-1; 2 a append k 2 2-3; 3 d append k 4 2-9 info; 4 a read k 1,4 4-5; 5 e read k 1,2 4-5 reset; \
         6 x final k 1,2 19-19",
        "RYW 2 4",
    ),
    (
        "mr kept on another branch that skips one",
        "1 a append k 1 0-1; 2 b append k 2 0-9; 3 c append k 3 0-9; 4 r read k 1,3 4-5 @MONOTONIC; 5 r read k 1,3 6-7 @MONOTONIC; \
         6 e read k 1 8-9 reset; 7 x final k 1,2,3 19-19",
        "",
    ),
    (
        "strong on another branch, after somebody else's read",
        "1 a append k 1 0-1; 2 b append k 2 2- info; 3 g read k 1,2 3-4; 4 d append k 4 2- info; 5 c read k 1,4 5-6 @STRONG; \
         6 e read k 1 7-8 reset; 7 x final k 1,2 19-19",
        "STALE 3 5",
    ),
    (
        "told of what another branch lacks, without a final list",
        "1 a append k 1 0-1; 2 a append k 2 2-3; 3 a read k 1,2 4-5; 4 d append k 4 4-5; 5 a read k 1 6-7 reset; 6 a read k 1,4 8-9",
        "",
    ),
    (
        "mw without a final list",
        "1 a append k 1 0-1; 2 a append j 2 2-3; 3 b read j 2 4-5 @SESSION; 4 b read k [] 6-7 @SESSION",
        "MW 1 2 3 4",
    ),
    ("unknown write not owed", "1 a append k 1 0-1 info; 2 a read k [] 2-3; 3 x final k 1 9-9", ""),
    ("unknown write without return", "1 a append k 1 0- info; 2 a read k [] 2-3; 3 x final k 1 9-9", ""),
    (
        "unknown write owed once read",
        "1 a append k 1 0- info; 2 a read k 1 2-3 @SESSION; 3 a read k [] 4-5 @SESSION; 4 x final k 1 9-9",
        "MR 2 3",
    ),
    (
        "unknown write read under ryw",
        "1 a append k 1 0- info; 2 a read k 1 2-3; 3 a read k [] 4-5; 4 x final k 1 9-9",
        "",
    ),
    ("failed read proves nothing", "1 a append k 1 0-1; 2 a read k [] 2-3 fail; 3 x final k 1 9-9", ""),
    ("mr kept", "1 a append k 1 0-1; 2 b read k 1 2-3 @MONOTONIC; 3 b read k 1 4-5 @MONOTONIC; 4 x final k 1 9-9", ""),
    (
        "mr broken",
        "1 a append k 1 0-1; 2 b read k 1 2-3 @MONOTONIC; 3 b read k [] 4-5 @MONOTONIC; 4 x final k 1 9-9",
        "MR 2 3",
    ),
    ("mr not promised by ryw", "1 a append k 1 0-1; 2 b read k 1 2-3; 3 b read k [] 4-5; 4 x final k 1 9-9", ""),
    (
        "mr of overlapping reads",
        "1 a append k 1 0-1; 2 b read k 1 2-4 @MONOTONIC; 3 b read k [] 4-5 @MONOTONIC; 4 x final k 1 9-9",
        "",
    ),
    (
        "mr of the read before an eventual one",
        "1 a append k 1 0-1; 2 b read k 1 2-3 @EVENTUAL; 3 b read k [] 4-5 @MONOTONIC; 4 x final k 1 9-9",
        "MR 2 3",
    ),
    ("mw of one key", "1 a append k 1 0-1 @SESSION; 2 a append k 2 2-3 @SESSION; 3 x final k 2,1 9-9", "MW 1 2"),
    ("mw not promised", "1 a append k 1 0-1; 2 a append k 2 2-3; 3 x final k 2,1 9-9", ""),
    ("mw of concurrent writes", "1 a append k 1 0-2 @SESSION; 2 a append k 2 2-3 @SESSION; 3 x final k 2,1 9-9", ""),
    (
        "mw of two keys",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b read k 2 4-5 @SESSION; 4 b read j [] 6-7 @SESSION; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "MW 1 2 3 4",
    ),
    (
        "mw kept",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b read k 2 4-5 @SESSION; 4 b read j 1 6-7 @SESSION; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "",
    ),
    (
        "mw in one snapshot",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b snap j+k []+2 4-5 @SESSION; 4 x final j 1 9-9; 5 x final k 2 9-9",
        "MW 1 2 3",
    ),
    (
        "mw in one snapshot kept",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b snap j+k 1+[] 4-5 @SESSION; 4 x final j 1 9-9; 5 x final k 2 9-9",
        "",
    ),
    (
        "mw of an unknown first write",
        "1 a append j 1 0-1 info; 2 a append k 2 2-3; 3 b snap j+k []+2 4-5 @SESSION; 4 x final j 1 9-9; 5 x final k 2 9-9",
        "",
    ),
    (
        "mw of an unknown second write",
        "1 a append j 1 0-1; 2 a append k 2 2-3 info; 3 b snap j+k []+2 4-5 @SESSION; 4 x final j 1 9-9; 5 x final k 2 9-9",
        "MW 1 2 3",
    ),
    (
        "wfr of one key",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 b append k 2 4-5 @SESSION; 4 x final k 2,1 9-9",
        "FORK 4 2|WFR 2 3",
    ),
    (
        "wfr of two keys",
        "1 a append j 1 0-1; 2 b read j 1 2-3; 3 b append k 2 4-5; 4 c snap j+k []+2 6-7 @SESSION; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "WFR 2 3 4",
    ),
    (
        "wfr not promised",
        "1 a append j 1 0-1; 2 b read j 1 2-3; 3 b append k 2 4-5; 4 c snap j+k []+2 6-7; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "",
    ),
    (
        "wfr of a read that overlaps",
        "1 a append j 1 0-1; 2 b read j 1 2-4; 3 b append k 2 4-5; 4 c snap j+k []+2 6-7 @SESSION; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "",
    ),
    (
        "causal by message",
        "1 a append k 1 0-1; 2 a send - - 2-3 m1; 3 b recv - - 2-4 m1; 4 b read k [] 5-6 @CAUSAL; 5 x final k 1 9-9",
        "CAUSAL 1 2 3 4",
    ),
    (
        "causal by message kept",
        "1 a append k 1 0-1; 2 a send - - 2-3 m1; 3 b recv - - 2-4 m1; 4 b read k 1 5-6 @CAUSAL; 5 x final k 1 9-9",
        "",
    ),
    (
        "causal by message not promised",
        "1 a append k 1 0-1; 2 a send - - 2-3 m1; 3 b recv - - 2-4 m1; 4 b read k [] 5-6 @SESSION; 5 x final k 1 9-9",
        "",
    ),
    (
        "causal write after the message",
        "1 a send - - 0-1 m1; 2 a append k 1 2-3; 3 b recv - - 2-4 m1; 4 b read k [] 5-6 @CAUSAL; 5 x final k 1 9-9",
        "",
    ),
    (
        "causal read during the message",
        "1 a append k 1 0-1; 2 a send - - 2-3 m1; 3 b recv - - 2-5 m1; 4 b read k [] 5-6 @CAUSAL; 5 x final k 1 9-9",
        "",
    ),
    (
        "causal by a read and a message",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 b send - - 4-5 m1; 4 c recv - - 4-6 m1; 5 c read k [] 7-8 @CAUSAL; 6 x final k 1 9-9",
        "CAUSAL 2 3 4 5",
    ),
    (
        "message that failed to arrive",
        "1 a append k 1 0-1; 2 a send - - 2-3 m1; 3 b recv - - 2-4 m1 fail; 4 b read k [] 5-6 @CAUSAL; 5 x final k 1 9-9",
        "",
    ),
    ("lost", "1 a append k 1 0-1; 2 x final k [] 9-9", "LOST 1 2"),
    ("lost and told", "1 a append k 1 0-1; 2 a read k [] 2-3 reset; 3 x final k [] 9-9", ""),
    ("lost and another told", "1 a append k 1 0-1; 2 b read k [] 2-3 reset; 3 x final k [] 9-9", "LOST 1 3"),
    (
        "told of an older loss before the write is lost",
        "1 a append k 1 0-1 e2; 2 a read j [] 2-3 reset e2; 3 a read k 1 4-5; 4 a read k [] 6-7 reset e3; 5 x final k [] 9-9",
        "",
    ),
    (
        "told of an older loss, and not of this one",
        "1 a append k 1 0-1 e2; 2 a read j [] 2-3 reset e2; 3 a read k [] 4-5; 4 a read k [] 6-7 reset e3; 5 x final k [] 9-9",
        "RYW 1 3",
    ),
    (
        "told of the loss in its own epoch",
        "1 a append k 1 0-1 e2; 2 a read k [] 2-3 reset e3; 3 a read k [] 4-5; 4 x final k [] 9-9",
        "",
    ),
    (
        "shown after it was told in the next epoch",
        "1 a append k 1 0-1 e2; 2 a read k [] 2-3 reset e3; 3 a read k 1 4-5; 4 b read k [] 6-7 reset; 5 x final k [] 9-9",
        "FORK 1 3",
    ),
    (
        "a write that was under way when another tab was told follows nothing that is lost",
        "1 a append k 1 0-1; 2 a append j 2 2-9 t1; 3 a read k [] 4-5 reset; 4 b read j 2 10-11 @SESSION; 5 b read k [] 12-13 @SESSION; 6 x final k [] 20-20; 7 x final j 2 20-20",
        "",
    ),
    (
        "a write that was answered before another tab was told follows what is lost",
        "1 a append k 1 0-1; 2 a append j 2 2-3 t1; 3 a read k [] 4-5 reset; 4 b read j 2 10-11 @SESSION; 5 b read k [] 12-13 @SESSION; 6 x final k [] 20-20; 7 x final j 2 20-20",
        "MW 1 2 4 5",
    ),
    ("told before the write", "1 a read k [] 0-1 reset; 2 a append k 1 2-3; 3 x final k [] 9-9", "LOST 2 3"),
    ("lost at eventual", "1 a append k 1 0-1 @EVENTUAL; 2 x final k [] 9-9", ""),
    ("lost and unknown", "1 a append k 1 0-1 info; 2 x final k [] 9-9", ""),
    (
        "read before being told",
        "1 a append k 1 0-1; 2 a read k [] 2-3; 3 a read k [] 4-5 reset; 4 x final k [] 9-9",
        "RYW 1 2",
    ),
    (
        "survivor after a reset",
        "1 a append k 1 0-1; 2 a read k [] 2-3 reset; 3 a read k [] 4-5; 4 x final k 1 9-9",
        "RYW 1 2|RYW 1 3",
    ),
    (
        "lost shown again after being told",
        "1 a append k 1 0-1; 2 a read k [] 2-3 reset; 3 a read k 1 4-5; 4 b read k [] 6-7 reset; 5 x final k [] 9-9",
        "FORK 1 3",
    ),
    (
        "message after being told",
        "1 a append k 1 0-1; 2 a read k [] 2-3 reset; 3 a send - - 4-5 m1; 4 b recv - - 4-6 m1; 5 b read k [] 7-8 @CAUSAL; 6 x final k [] 9-9",
        "",
    ),
    (
        "message before being told",
        "1 a append k 1 0-1; 2 a send - - 2-3 m1; 3 a read k [] 4-5 reset; 4 b recv - - 4-6 m1; 5 b read k [] 7-8 @CAUSAL; 6 x final k [] 9-9",
        "CAUSAL 1 2 4 5",
    ),
    (
        "fork",
        "1 a append k 1 0-1; 2 b append k 2 0-1; 3 c read k 1 2-3; 4 d read k 2 2-3; 5 x final k 1,2 9-9",
        "FORK 5 4",
    ),
    (
        "fork of finals",
        "1 a append k 1 0-1 @EVENTUAL; 2 b append k 2 0-1 @EVENTUAL; 3 x final k 1 9-9; 4 x final k 2 9-9",
        "FORK 3 4",
    ),
    ("final that lags", "1 a append k 1 0-1; 2 x final k 1 9-9; 3 x final k [] 9-9", ""),
    (
        "dead branch with a signal",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 a read k [] 4-5 reset; 4 x final k [] 9-9",
        "",
    ),
    ("dead branch without a signal", "1 a append k 1 0-1 info; 2 b read k 1 2-3; 3 x final k [] 9-9", "FORK 3 2"),
    ("one row version twice", "1 a put r 1 0-1 v1; 2 b put r 2 0-1 v1; 3 x final r 2 9-9", "FORK 1 2"),
    ("one value with two row versions", "1 a put r 1 0-1 v1; 2 b read r 1 2-3 v2", "FORK 1 2"),
    (
        "long fork",
        "1 a append j 1 0-1; 2 b append k 2 0-1; 3 c snap j+k 1+[] 0-5 @STRONG; 4 d snap j+k []+2 0-5 @STRONG; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "FORK 4 3",
    ),
    (
        "long fork at causal",
        "1 a append j 1 0-1; 2 b append k 2 0-1; 3 c snap j+k 1+[] 0-5 @CAUSAL; 4 d snap j+k []+2 0-5 @CAUSAL; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "",
    ),
    (
        "long fork with a list on another branch, which is as long as one of the main branch and shows none of it",
        "1 a append j 9 0-1; 2 b append k 5 0-8; 3 c snap j+k 9+5 2-3 @STRONG; 4 d append j 1 4-5; 5 e snap j+k 1+[] 2-9 @STRONG; \
         6 a read k 5 10-11 reset; 7 x final j 1 20-20; 8 x final k 5 20-20",
        "FORK 3 5",
    ),
    ("thin air", "1 a read k 5 0-1; 2 x final k 5 9-9", "THIN_AIR 1"),
    ("thin air in a register", "1 a read r 5 0-1 @EVENTUAL", "THIN_AIR 1"),
    ("read of a failed write", "1 a append k 1 0-1 fail; 2 b read k 1 2-3; 3 x final k 1 9-9", "THIN_AIR 1 2"),
    (
        "read of a failed row, which is older than nothing",
        "1 a put r 1 0-1 v1; 2 a put r 2 2-3 fail; 3 a read r 2 4-5; 4 x final r 1 9-9",
        "THIN_AIR 2 3",
    ),
    ("one element twice", "1 a append k 1 0-1; 2 b read k 1,1 2-3; 3 x final k 1,1 9-9", "THIN_AIR 1 2"),
    ("read before it was written", "1 a read k 1 0-1; 2 b append k 1 2-3; 3 x final k 1 9-9", "THIN_AIR 2 1"),
    ("cycle", "1 a read k 1 0-1; 2 a append k 1 2-3; 3 x final k 1 9-9", "CYCLE 1 2"),
    (
        "cycle of two sessions",
        "1 a read k 1 0-1; 2 a append j 2 2-3; 3 b read j 2 2-3; 4 b append k 1 4-5; 5 x final k 1 9-9; 6 x final j 2 9-9",
        "CYCLE 1 2 3 4",
    ),
    ("strong kept", "1 a append k 1 0-1; 2 b read k 1 2-3 @STRONG; 3 x final k 1 9-9", ""),
    ("strong stale", "1 a append k 1 0-1; 2 b read k [] 2-3 @STRONG; 3 x final k 1 9-9", "STALE 1 2"),
    ("strong at the same instant", "1 a append k 1 0-2; 2 b read k [] 2-3 @STRONG; 3 x final k 1 9-9", ""),
    (
        "strong among reads",
        "1 a append k 1 0- info; 2 b read k 1 2-3; 3 c read k [] 4-5 @STRONG; 4 x final k 1 9-9",
        "STALE 2 3",
    ),
    (
        "strong stale on another branch",
        "1 a append k 1 0-1; 2 b append k 2 2-3; 3 d append k 4 2-9; 4 c read k 1,4 4-5 @STRONG; 5 e read k 1,2 4-5 reset; 6 x final k 1,2 9-9",
        "LOST 3 6|STALE 2 4",
    ),
    (
        "bounded on another branch, in time",
        "1 a append k 1 0-1; 2 b append k 2 5-6; 3 d append k 4 2-9 info; 4 c read k 1,4 14-15 @BOUNDED; 5 e read k 1,2 14-15 reset; \
         6 x final k 1,2 19-19",
        "",
    ),
    ("strong write", "1 a append k 1 0-1; 2 b append k 2 2-3 @STRONG; 3 x final k 2,1 9-9", "STALE 1 2"),
    ("bounded within", "1 a append k 1 0-1; 2 b read k [] 11-12 @BOUNDED; 3 x final k 1 9-9", ""),
    ("bounded beyond", "1 a append k 1 0-1; 2 b read k [] 12-13 @BOUNDED; 3 x final k 1 9-9", "STALE 1 2"),
    (
        "bounded by acknowledgements only",
        "1 a append k 1 0- info; 2 b read k 1 1-2; 3 c read k [] 30-31 @BOUNDED; 4 x final k 1 9-9",
        "",
    ),
    ("row versions", "1 a put r 1 0-1 v1; 2 b put r 2 0-1 v2; 3 b read r 1 2-3; 4 x final r 2 9-9", "RYW 2 3"),
    ("row versions kept", "1 a put r 1 0-1 v1; 2 b put r 2 0-1 v2; 3 a read r 2 2-3; 4 x final r 2 9-9", ""),
    ("row lost", "1 a put r 1 0-1 v1; 2 b put r 2 2-3 v2; 3 x final r 1 9-9", "LOST 2 3"),
    (
        "row that survived is owed after a reset",
        "1 a put r 1 0-1 v1; 2 a put r 2 2-3 v2; 3 a read r 1 4-5 reset; 4 a read r 1 6-7; 5 x final r 2 9-9",
        "RYW 2 3|RYW 2 4",
    ),
    (
        "row that may be lost is not owed after a reset",
        "1 a put r 1 0-1 v1; 2 a put r 2 2-3 v2; 3 b put r 3 2-3 v3; 4 a read r 1 4-5 reset; 5 a read r 1 6-7; 6 x final r 3 9-9",
        "",
    ),
    ("single writer", "1 a put r 1 0-1; 2 a put r 2 2-3; 3 a read r 1 4-5", "RYW 2 3"),
    ("single writer after a reset", "1 a put r 1 0-1; 2 a put r 2 2-3; 3 a read r 1 4-5 reset; 4 a read r 1 6-7", ""),
    (
        "single writer that goes on after a reset",
        "1 a put r 1 0-1; 2 a put r 2 2-3; 3 a read r 1 4-5 reset; 4 a read r 1 6-7; 5 a put r 3 8-9; 6 x final r 3 10-11",
        "",
    ),
    (
        "swaps that go on after a reset",
        "1 a put r 1 0-1 pnull; 2 b put r 2 2-3 p1; 3 b read r 1 4-5 reset; 4 b read r 1 6-7; 5 a put r 3 8-9 p2; 6 x final r 3 10-11",
        "",
    ),
    (
        "row written right after a reset",
        "1 a put r 1 0-1 v1; 2 a read r 1 2-3 reset; 3 a put r 2 4-5 v2; 4 a read r 1 6-7; 5 b put r 3 8-9 v3; 6 x final r 3 9-9",
        "RYW 3 4",
    ),
    ("one row version twice in one session", "1 a put r 1 0-1 v1 @SESSION; 2 a put r 2 2-3 v1 @SESSION", "FORK 1 2"),
    (
        "mr names the first read",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 b read k 1 4-5; 4 b read k [] 6-7 @MONOTONIC; 5 x final k 1 9-9",
        "MR 2 4",
    ),
    (
        "strong names the first to show it",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 c read k [] 4-5 @STRONG; 4 x final k 1 9-9",
        "STALE 1 3",
    ),
    (
        "lost, read elsewhere, monotonic",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 b append j 2 4-5; 4 c read j 2 6-7 @MONOTONIC; 5 c read k [] 8-9 @MONOTONIC; 6 a read k [] 20-21 reset; 7 x final k [] 30-30; 8 x final j 2 30-30",
        "",
    ),
    (
        "lost, read elsewhere, session",
        "1 a append k 1 0-1; 2 b read k 1 2-3; 3 b append j 2 4-5; 4 c read j 2 6-7 @SESSION; 5 c read k [] 8-9 @SESSION; 6 a read k [] 20-21 reset; 7 x final k [] 30-30; 8 x final j 2 30-30",
        "WFR 1 5",
    ),
    (
        "dead branch at the instant of the signal",
        "1 a append k 1 0-1; 2 a read k [] 2-4 reset; 3 b read k 1 4-5; 4 x final k [] 9-9",
        "",
    ),
    (
        "fork of finals in spite of a reset",
        "1 a append k 1 0-1 @EVENTUAL; 2 b append k 2 0-1 @EVENTUAL; 3 x final k 1 9-9; 4 x final k 2 9-9; 5 c read j [] 20-21 reset",
        "FORK 3 4",
    ),
    (
        "snapshots that agree",
        "1 a append j 1 0-1; 2 b append k 2 0-1; 3 c snap j+k []+2 0-5 @STRONG; 4 d snap j+k 1+2 0-5 @STRONG; 5 x final j 1 9-9; 6 x final k 2 9-9",
        "",
    ),
    (
        "no cycle at the same instant",
        "1 a read k 1 0-1; 2 a append j 2 2-3; 3 b read j 2 2-4; 4 b append k 1 4-5; 5 x final k 1 9-9; 6 x final j 2 9-9",
        "THIN_AIR 4 1",
    ),
    (
        "mw learned twice",
        "1 a append j 1 0-1; 2 a append k 2 2-3; 3 b read k 2 4-5; 4 b read k 2 6-7; 5 b read j [] 8-9 @SESSION; 6 x final j 1 9-9; 7 x final k 2 9-9",
        "MW 1 2 3 5",
    ),
    (
        "single writer with an unknown write",
        "1 a put r 1 0-1 info; 2 a put r 2 2-3; 3 b read r 1 4-5; 4 a read r 1 6-7",
        "",
    ),
    (
        "compare and set with a gap",
        "1 a put r 1 0-1 pnull; 2 b put r 2 0-1 p1; 3 b read r 1 2-3; 4 c put r 3 0-1 p9",
        "",
    ),
    ("one row version twice orders nothing", "1 a put r 1 0-1 v1; 2 a put r 2 2-3 v1; 3 a read r 1 4-5", "FORK 1 2"),
    ("final row that lags", "1 a put r 1 0-1 v1; 2 b put r 2 2-3 v2; 3 x final r 2 9-9; 4 x final r 1 9-9", ""),
    ("single writer in tabs", "1 a put r 1 0-3; 2 a put r 2 2-3 t1; 3 a read r 1 4-5", ""),
    ("compare and set", "1 a put r 1 0-1 pnull; 2 b put r 2 0-1 p1; 3 b read r 1 2-3", "RYW 2 3"),
    ("compare and set twice", "1 a put r 1 0-1 pnull; 2 b put r 2 0-1 pnull", "FORK 1 2"),
    ("without an order", "1 a put r 1 0-1; 2 b read r 1 2-3; 3 b put r 2 4-5; 4 b read r 1 6-7", "RYW 1 3 4"),
    ("without an order kept", "1 a put r 1 0-5; 2 b put r 2 0-1; 3 b read r 1 6-7", ""),
    ("without an order, initial value", "1 a put r 1 0-1; 2 b put r 2 0-1; 3 b read r null 2-3", "RYW 2 3"),
];

#[test]
fn each_history_has_exactly_its_violations() {
    assert!(CASES.len() >= 60);
    each_has_exactly_its_violations(CASES);
}

#[test]
fn strict_owes_unknown_writes_that_survived() {
    let text = json("1 a append k 1 0-1 info; 2 a read k [] 2-3; 3 x final k 1 9-9");
    let mut options = Options::default();
    options.strict = true;
    let report = check(&History::parse(&text).unwrap(), &options);
    assert_eq!(report.violations[0].ops, [1, 2]);
    let lost = json("1 a append k 1 0-1 info; 2 a read k [] 2-3; 3 x final k [] 9-9");
    assert!(check(&History::parse(&lost).unwrap(), &options).violations.is_empty());
    // A register that was read before a loss, which may have been what it took.
    let register = |told: &str, end: &str, row: &str| {
        let text = format!(
            "1 a put r 1 0-1 info; 2 a read r 1 2-3 v1; 3 b read q null 4-5 {told}; 4 a read r null 6-7; 5 x final r {end} 9-9 {row}"
        );
        check(&History::parse(&json(&text)).unwrap(), &options).violations.len()
    };
    assert_eq!([register("reset", "null", ""), register("reset", "1", "v1"), register("", "null", "")], [0, 1, 1]);
    let unordered = "1 a put r 1 0-1; 2 c put r 9 0-1; 3 b read r 1 2-3; 4 b put r 2 4-5 info; 5 b read r 1 6-7";
    assert!(check(&History::parse(&json(unordered)).unwrap(), &options).violations.is_empty());
}

#[test]
fn temptations_need_a_later_read_that_is_older() {
    let count = |text: &str| check(&History::parse(&json(text)).unwrap(), &Options::default()).temptations;
    assert_eq!(count("1 a append k 1 0-1; 2 a read k 1 2-3; 3 b read k [] 2-3; 4 x final k 1 9-9"), 1);
    assert_eq!(count("1 a append k 1 0-1; 2 b read k [] 2-3; 3 a read k 1 2-3; 4 x final k 1 9-9"), 1);
    assert_eq!(count("1 a append k 1 0-1; 2 a read k 1 2-3; 3 b read k [] 1-3; 4 x final k 1 9-9"), 0);
    assert_eq!(count("1 a append k 1 0-1; 2 c read k 1 2-3; 3 b read k [] 2-3; 4 x final k 1 9-9"), 0);
}
