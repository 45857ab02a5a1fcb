//! A brute-force oracle, by the definitions: the causal order as a matrix, every pair and triple tried.

use std::collections::BTreeSet;

use ryw_check::{History, Kind, Options, check};

use crate::generate::{Case, F, LIST, Op, ROWS, case, text};

type Order = Vec<Vec<bool>>;

struct Oracle<'a> {
    case: &'a Case,
    so: Order,
    session: Order,
    causal: Order,
}

fn closed(mut order: Order) -> Order {
    let n = order.len();
    for via in 0..n {
        for from in 0..n {
            for to in 0..n {
                order[from][to] |= order[from][via] && order[via][to];
            }
        }
    }
    order
}

fn answered(op: &Op) -> bool {
    op.f == F::Read && matches!(op.out, "ok" | "reset")
}

fn shows(r: &Op, w: &Op) -> bool {
    answered(r) && w.f == F::Write && r.key == w.key && r.val.contains(&w.v)
}

impl<'a> Oracle<'a> {
    fn new(case: &'a Case) -> Self {
        let ops = &case.ops;
        let matrix = |edge: &dyn Fn(&Op, &Op) -> bool| -> Order {
            ops.iter().map(|a| ops.iter().map(|b| edge(a, b)).collect()).collect()
        };
        let so = |a: &Op, b: &Op| a.s == b.s && a.ret.is_some_and(|ret| ret < b.inv);
        let wr = |a: &Op, b: &Op| shows(b, a);
        let msg = |a: &Op, b: &Op| a.f == F::Send && b.f == F::Recv && a.msg == b.msg;
        Self {
            case,
            so: matrix(&so),
            session: closed(matrix(&|a, b| so(a, b) || wr(a, b))),
            causal: closed(matrix(&|a, b| so(a, b) || wr(a, b) || msg(a, b))),
        }
    }

    /// Whether `from` leads to `to` by a path that begins in its own session.
    fn leads(&self, order: &Order, from: usize, to: usize) -> bool {
        (0..self.case.ops.len()).any(|x| self.so[from][x] && (x == to || order[x][to]))
    }

    /// How an operation that wrote (`write`) or showed something binds `to`: all labels that apply.
    fn labels(&self, from: usize, to: usize, write: bool, read: bool) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if self.so[from][to] && read {
            kinds.push(if write { Kind::Ryw } else { Kind::Mr });
        }
        if self.leads(&self.session, from, to) {
            kinds.push(if write { Kind::Mw } else { Kind::Wfr });
        }
        if self.leads(&self.causal, from, to) {
            kinds.push(Kind::Causal);
        }
        kinds
    }

    fn position(&self, key: usize, v: i64) -> Option<i64> {
        match key {
            LIST => {
                let at = self.case.list.iter().position(|x| *x == v).map(|at| at as i64 + 1);
                // What nobody has read, and was acknowledged, is there all the same: behind all that was.
                let unread = self.case.without_final
                    && self.case.ops.iter().any(|w| w.f == F::Write && w.key == LIST && w.v == v && w.out == "ok");
                at.or(unread.then_some(self.case.list.len() as i64 + 1))
            }
            ROWS => Some(v),
            _ => self.single_writer().iter().position(|x| *x == v).map(|at| at as i64 + 1),
        }
    }

    /// The values of key `c` in order, when one session has written them one after the other.
    fn single_writer(&self) -> Vec<i64> {
        let ops = &self.case.ops;
        let counts = |w: &&Op| w.out == "ok" || (w.out == "info" && ops.iter().any(|r| shows(r, w)));
        let mut writes: Vec<&Op> = ops.iter().filter(|w| w.f == F::Write && w.key > ROWS).filter(counts).collect();
        writes.sort_by_key(|w| w.inv);
        let follows = |a: &Op, b: &Op| a.s == b.s && a.out == "ok" && a.ret < Some(b.inv);
        let ordered = writes.windows(2).all(|pair| follows(pair[0], pair[1]));
        if ordered { writes.iter().map(|w| w.v).collect() } else { Vec::new() }
    }

    fn ordered(&self, key: usize) -> bool {
        key <= ROWS || !self.single_writer().is_empty()
    }

    /// What must not happen to `to`: each cause that is a write, or a read showing it, with the value.
    fn causes(&self, to: usize) -> Vec<(usize, i64, bool)> {
        let key = self.case.ops[to].key;
        let mut causes = Vec::new();
        for (number, op) in self.case.ops.iter().enumerate().filter(|(n, op)| *n != to && op.key == key) {
            if op.f == F::Write && op.out == "ok" {
                causes.push((number, op.v, true));
            } else if answered(op) {
                causes.extend(op.val.iter().map(|v| (number, *v, false)));
            }
        }
        causes
    }

    fn before(&self, shown: Option<i64>, value: i64) -> bool {
        let Some(shown) = shown else { return true };
        let at = |v: i64| self.case.ops.iter().position(|op| op.f == F::Write && op.v == v);
        let (Some(a), Some(b)) = (at(shown), at(value)) else { return false };
        let ok = self.case.ops[a].out == "ok" && self.leads(&self.causal, a, b);
        let readers = (0..self.case.ops.len()).filter(|r| shows(&self.case.ops[*r], &self.case.ops[a]));
        ok || readers.into_iter().any(|r| self.causal[r][b])
    }

    fn expected(&self) -> BTreeSet<(Kind, i64)> {
        let mut expected = BTreeSet::new();
        for (number, op) in self.case.ops.iter().enumerate() {
            if (answered(op) || (op.f == F::Write && op.out != "fail"))
                && let Some(kind) = self.judge(number, op)
            {
                expected.insert((kind, op.id));
            }
            if answered(op) && op.key == LIST && self.owed_lost(number) {
                expected.insert((Kind::Lost, op.id));
            }
            if op.f == F::Write && op.key == LIST && op.out == "ok" && op.level != "EVENTUAL" {
                let told = self.case.ops.iter().any(|q| q.s == op.s && q.out == "reset" && q.ret >= Some(op.inv));
                if self.position(LIST, op.v).is_none() && !told {
                    expected.insert((Kind::Lost, op.id));
                }
            }
        }
        expected
    }

    fn judge(&self, number: usize, op: &Op) -> Option<Kind> {
        let read = answered(op);
        let mut shown = op.val.last().copied();
        if !read {
            shown = Some(op.v);
            self.position(op.key, op.v)?;
            if op.key != LIST && op.out != "ok" && !self.case.ops.iter().any(|r| shows(r, op)) {
                return None;
            }
        }
        let newer = |v: i64| match op.key {
            LIST if read => self.position(LIST, v).is_some() && !op.val.contains(&v),
            _ if self.ordered(op.key) => {
                self.position(op.key, v) > shown.and_then(|shown| self.position(op.key, shown))
            }
            _ => Some(v) != shown && self.before(shown, v),
        };
        let causes: Vec<_> = self.causes(number).into_iter().filter(|(_, v, _)| newer(*v)).collect();
        let labels = causes.iter().flat_map(|(from, _, write)| self.labels(*from, number, *write, read));
        let first = labels.filter(|kind| promised(op.level, *kind)).min();
        let late = |from: usize| self.case.ops[from].ret.is_some_and(|ret| ret < op.inv);
        let stale = op.level == "STRONG" && self.ordered(op.key) && causes.iter().any(|(from, ..)| late(*from));
        first.or(stale.then_some(Kind::Stale))
    }

    /// Whether some lost write binds a read by a path that no reset cuts.
    fn owed_lost(&self, to: usize) -> bool {
        let ops = &self.case.ops;
        let op = &ops[to];
        let ends = |op: &Op| op.ret.unwrap_or(u64::MAX);
        // Whether a session was told of a loss after it had learned at `from`, by an answer that was asked for until then.
        let told = |from: usize, until: u64| {
            let resets = ops.iter().filter(|q| q.s == ops[from].s && q.out == "reset");
            resets.into_iter().any(|q| ends(q) >= ops[from].inv && q.inv <= until)
        };
        let kept = |from: usize| self.so[from][to] && !told(from, ends(op));
        if told(to, ends(op)) {
            return false;
        }
        // What a session has learned, it passes on by a write that is shown, or a message: that is the way around others.
        let hops = |messages: bool| -> Order {
            let hop = |from: usize, via: usize, by: usize| {
                let (carrier, receiver) = (&ops[via], &ops[by]);
                let message = carrier.f == F::Send && receiver.f == F::Recv && carrier.msg == receiver.msg;
                self.so[from][via]
                    && (shows(receiver, carrier) || (messages && message))
                    && !told(from, ends(carrier).min(ends(receiver)))
            };
            let n = ops.len();
            let any = |from, by| (0..n).any(|via| hop(from, via, by));
            closed((0..n).map(|from| (0..n).map(|by| any(from, by)).collect()).collect())
        };
        let (session, causal) = (hops(false), hops(true));
        self.causes(to).into_iter().any(|(from, v, write)| {
            let acknowledged = ops.iter().any(|w| w.f == F::Write && w.key == LIST && w.v == v && w.out == "ok");
            let leads = |order: &Order| (0..ops.len()).any(|by| order[from][by] && (by == to || kept(by)));
            acknowledged
                && self.position(LIST, v).is_none()
                && !op.val.contains(&v)
                && ((kept(from) && promised(op.level, if write { Kind::Ryw } else { Kind::Mr }))
                    || (promised(op.level, Kind::Mw) && leads(&session))
                    || (promised(op.level, Kind::Causal) && leads(&causal)))
        })
    }

    /// Histories with other faults are compared by their verdict alone.
    fn malformed(&self) -> bool {
        let ops = &self.case.ops;
        let future = |r: &Op, w: &Op| shows(r, w) && Some(w.inv) > r.ret;
        let failed = |v: &i64| !ops.iter().any(|w| w.f == F::Write && w.v == *v && w.out != "fail");
        let untimely = |a: &Op, b: &Op| a.f == F::Send && b.f == F::Recv && a.msg == b.msg && Some(a.inv) > b.ret;
        ops.iter().any(|r| answered(r) && r.val.iter().any(failed))
            || self.case.list.iter().any(failed)
            || ops.iter().any(|a| ops.iter().any(|b| future(a, b) || untimely(a, b)))
            || (0..ops.len()).any(|at| self.causal[at][at])
    }

    fn forked(&self) -> bool {
        let last_reset = self.case.ops.iter().filter(|q| q.out == "reset").map(|q| q.ret).max();
        let unsignalled = |r: &Op| last_reset.flatten().is_none_or(|last| last < r.inv);
        let mut lists = self.case.ops.iter().filter(|r| answered(r) && r.key == LIST);
        lists.any(|r| r.level != "EVENTUAL" && !self.case.list.starts_with(&r.val) && unsignalled(r))
    }

    /// Whether a read shows something lost after its session was told of a loss.
    fn may_be_back(&self, read: &Op) -> bool {
        let told =
            self.case.ops.iter().any(|q| q.s == read.s && q.out == "reset" && q.id != read.id && q.ret <= read.ret);
        answered(read) && told && read.val.iter().any(|v| self.position(LIST, *v).is_none())
    }

    fn diverged(&self) -> bool {
        let lists = self.case.ops.iter().filter(|r| answered(r) && r.key == LIST);
        lists.into_iter().any(|r| !self.case.list.starts_with(&r.val))
    }
}

fn promised(level: &str, kind: Kind) -> bool {
    match level {
        "MONOTONIC" => kind == Kind::Mr,
        "RYW" => kind == Kind::Ryw,
        "SESSION" => kind < Kind::Causal,
        "CAUSAL" | "STRONG" => kind <= Kind::Causal,
        _ => false,
    }
}

#[test]
fn agrees_with_the_definitions() {
    let seed = std::env::var("RYW_CHECK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20);
    println!("RYW_CHECK_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut violated, mut exact) = (0, 0);
    for _ in 0..100_000 {
        let case = case(&mut rng);
        let text = text(&case);
        let oracle = Oracle::new(&case);
        let expected = oracle.expected();
        let report = check(&History::parse(&text).unwrap(), &Options::default());
        let found = &report.violations;
        let wrong = oracle.malformed() || oracle.forked();
        violated += u32::from(!found.is_empty());
        if wrong {
            assert!(!found.is_empty(), "not found:\n{text}");
        } else if oracle.diverged()
            || !case.ops.iter().all(|op| op.out != "reset")
            || expected.iter().any(|(kind, _)| *kind == Kind::Lost)
        {
            // Besides, what a session was told to be lost must not come back.
            let (forks, others): (Vec<_>, Vec<_>) = found.iter().partition(|violation| violation.kind == Kind::Fork);
            let back = |id: i64| case.ops.iter().any(|op| op.id == id && oracle.may_be_back(op));
            assert!(forks.iter().all(|fork| fork.ops.iter().any(|id| back(*id))), "{forks:?}\n{text}");
            assert!(!forks.is_empty() || others.is_empty() == expected.is_empty(), "{expected:?}\n{found:?}\n{text}");
        } else {
            let found = found.iter().map(|v| (v.kind, *v.ops.last().unwrap())).collect::<BTreeSet<_>>();
            assert_eq!(found, expected, "{text}");
            exact += 1;
        }
    }
    println!("{violated} violated, {exact} compared exactly");
    assert!((10_000..80_000).contains(&violated) && exact > 50_000, "the generator is lopsided");
}
