//! What every mark store must do, whatever keeps its marks.
//!
//! A store of yours is right when this passes:
//!
//! ```
//! use std::time::Duration;
//! use ryw_testing::suite::{self, Times};
//! use tower_ryw::LocalStore;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
//! # runtime.block_on(async {
//! let times = Times { hold: Duration::from_millis(300), ttl: Duration::from_secs(2) };
//! suite::check(times, async |ttl| LocalStore::builder().ttl(ttl).build()).await;
//! # });
//! ```

#![expect(clippy::expect_used, reason = "a store that does not answer has failed")]

use std::{collections::HashMap, future::poll_fn, pin::pin, task::Poll, time::Duration};

use ryw_core::{
    ClusterId, Epoch, Loaded, Lost, Mark, MarkStore, Marks, Position, SubjectKey, Unsettled, Update,
    wire::MAX_POSITIONS,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// How long things take in the store under test.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long the suite holds writes whose place nobody knows: well above what the store takes to answer, and above the
    /// resolution of its clock.
    pub hold: Duration,
    /// How long a store keeps a mark in the parts of the suite that wait for marks to expire: at least six times the hold.
    pub ttl: Duration,
}

/// Checks a kind of store. `make` makes one that nobody has used before, and which keeps marks for the given time. Sleeps
/// for several of the given times, on tokio's clock.
///
/// # Panics
/// With what the store does wrong.
pub async fn check<S: MarkStore + Clone>(times: Times, make: impl AsyncFn(Duration) -> S) {
    let suite = Suite { store: make(Duration::from_secs(3600)).await, times };
    suite.knows_that_it_knows_nothing().await;
    suite.says_whether_there_is_an_entry().await;
    suite.keeps_what_is_joined().await;
    suite.compares_all_64_bits().await;
    suite.joins_at_the_same_time().await;
    suite.holds_and_doubts().await;
    suite.an_answer_is_as_old_as_its_question().await;
    suite.open_ends_are_settled_in_their_own_epoch().await;
    suite.acknowledges_what_was_told().await;
    suite.more_branches_than_fit_are_unknown().await;
    suite.a_dropped_join_harms_nobody().await;
    let suite = Suite { store: make(times.ttl).await, times };
    suite.what_expires_is_still_covered().await;
    suite.never_demands_less_than_a_map_that_forgets_nothing().await;
}

const CLUSTER: ClusterId = ClusterId::new(7);

fn of(epoch: u32, offset: u64) -> Position {
    Position::new(CLUSTER, Epoch::new(epoch), offset)
}

fn at(offset: u64) -> Position {
    of(1, offset)
}

const END: Position = Position::end_of(CLUSTER, Epoch::new(1));

fn random_key() -> SubjectKey {
    SubjectKey::from_bytes(fastrand::u128(..).to_le_bytes())
}

struct Suite<S> {
    store: S,
    times: Times,
}

impl<S: MarkStore + Clone> Suite<S> {
    async fn load(&self, keys: &[SubjectKey]) -> Loaded {
        self.store.load(keys).await.expect("the store answers")
    }

    /// What a subject must see: its own marks and the floor's together.
    async fn required(&self, key: SubjectKey) -> Marks {
        let Loaded { mut marks, floor, .. } = self.load(&[key]).await;
        marks.join(&floor);
        marks
    }

    async fn join(&self, key: SubjectKey, marks: Marks, hold: Option<Duration>) {
        self.store.join(&[key], &Update { marks, hold }).await.expect("the store takes a mark");
    }

    async fn settle(&self, unsettled: &[Unsettled], sample: Position) {
        self.store.settle(unsettled, Some(sample)).await.expect("the store takes an answer");
    }

    async fn acknowledge(&self, key: SubjectKey, told: &Marks) {
        self.store.acknowledge(&[key], told).await.expect("the store takes an acknowledgement");
    }

    /// A subject of which nothing is in doubt.
    async fn known(&self) -> SubjectKey {
        let key = random_key();
        self.settle_all(key, at(0)).await;
        key
    }

    async fn settle_all(&self, key: SubjectKey, sample: Position) {
        let deadline = Instant::now() + 4 * self.times.ttl;
        loop {
            let loaded = self.load(&[key]).await;
            if !loaded.marks.is_unknown() && !loaded.marks.is_pending() {
                return;
            }
            assert!(Instant::now() < deadline, "{loaded:?} is never settled");
            match loaded.unsettled.is_empty() {
                true => sleep(self.times.hold / 4).await,
                false => self.settle(&loaded.unsettled, sample).await,
            }
        }
    }

    async fn after_the_hold(&self) {
        sleep(self.times.hold + self.times.hold / 2).await;
    }

    async fn knows_that_it_knows_nothing(&self) {
        let key = random_key();
        let loaded = self.load(&[key]).await;
        let demands = !loaded.marks.is_none() || !loaded.floor.is_none();
        assert!(demands, "a subject that was never seen is taken for one that has written nothing: {loaded:?}");
        self.settle_all(key, at(0)).await;
        assert!(self.required(key).await.covers(&Marks::at(at(0))), "the sample that settled it counts");
    }

    async fn says_whether_there_is_an_entry(&self) {
        let [one, other] = [self.known().await, self.known().await];
        assert!(!self.load(&[one]).await.has_entry, "a sample that settles the floor is no entry");
        self.join(one, Marks::unknown(), Some(self.times.hold)).await;
        assert!(self.load(&[one]).await.has_entry, "something was joined");
        assert!(self.load(&[other, one]).await.has_entry, "for one of them");
        assert!(!self.load(&[other]).await.has_entry, "it is another subject's");
        self.settle_all(one, at(1)).await;
        assert!(self.load(&[one]).await.has_entry, "also when it is settled");
    }

    async fn keeps_what_is_joined(&self) {
        let [one, other] = [self.known().await, self.known().await];
        self.join(one, Marks::at(at(120)), None).await;
        self.join(one, Marks::at(at(90)), None).await;
        self.join(one, Marks::at(of(2, 30)), None).await;
        let expected = Marks::from_iter([Mark::At(at(120)), Mark::At(of(2, 30))]);
        assert_eq!(self.load(&[one]).await.marks, expected, "the larger one, and epochs apart");
        self.store
            .join(&[one, other], &Update { marks: Marks::at(at(130)), hold: None })
            .await
            .expect("both are joined");
        assert!(self.required(other).await.covers(&Marks::at(at(130))));
        let both = self.load(&[one, other]).await.marks;
        assert!(both.covers(&Marks::from_iter([Mark::At(at(130)), Mark::At(of(2, 30))])), "the join of both: {both:?}");
        let lost = Lost { epoch: Epoch::new(2), was: Epoch::new(1) };
        self.join(one, Marks::from_iter([Mark::Lost(lost)]), None).await;
        self.join(one, Marks::none(), None).await;
        assert_eq!(self.load(&[one]).await.marks.lost(), Some(lost));
        assert!(self.load(&[]).await.marks.is_none());
    }

    async fn compares_all_64_bits(&self) {
        let place = |cluster, epoch, offset| Position::new(ClusterId::new(cluster), Epoch::new(epoch), offset);
        for (cluster, epoch) in [(7, 1), (u64::MAX, u32::MAX), (1 << 63, 1 << 31), ((1 << 53) + 1, 3)] {
            let key = self.known().await;
            let place = |offset| place(cluster, epoch, offset);
            for [smaller, larger] in [
                [u64::MAX - 2, u64::MAX - 1],
                [(1 << 53), (1 << 53) + 1],
                [u64::from(u32::MAX), 1 << 32],
                [9, 10],
                [0x00ff, 0x0100],
                [(1 << 63) - 1, 1 << 63],
            ] {
                let key = if larger == u64::MAX - 1 { key } else { self.known().await };
                for position in [place(smaller), place(larger), place(smaller)] {
                    self.join(key, Marks::at(position), None).await;
                }
                let marks = self.load(&[key]).await.marks;
                assert!(
                    marks.positions().contains(&place(larger)),
                    "{larger:#x} is larger than {smaller:#x}: {marks:?}"
                );
            }
        }
    }

    async fn joins_at_the_same_time(&self) {
        let key = self.known().await;
        // Not the first one: where the first is of a later epoch than the floor, it is unknown what it has forgotten.
        let mut expected = Marks::at(at(1));
        self.join(key, expected.clone(), None).await;
        let mut joins = JoinSet::new();
        for number in 0..64_u64 {
            let epoch = u32::try_from(number % 5).unwrap_or(0) + 1;
            let marks = Marks::at(of(epoch, fastrand::u64(1..1000)));
            expected.join(&marks);
            let update = Update { marks, hold: None };
            // Some arrive twice.
            for _ in 0..1 + number % 2 {
                let (store, update) = (self.store.clone(), update.clone());
                joins.spawn(async move { store.join(&[key], &update).await });
            }
        }
        for joined in joins.join_all().await {
            joined.expect("the store takes a mark");
        }
        assert_eq!(self.load(&[key]).await.marks, expected);
    }

    async fn holds_and_doubts(&self) {
        let hold = self.times.hold;
        let key = self.known().await;
        self.join(key, Marks::none(), Some(hold)).await;
        assert!(self.load(&[key]).await.marks.is_pending());
        self.after_the_hold().await;
        assert_eq!(self.load(&[key]).await.marks.without_unknown().lost(), None);
        assert!(!self.load(&[key]).await.marks.is_pending(), "the hold is over");

        let key = self.known().await;
        self.join(key, [Mark::At(at(5)), Mark::Unknown].into_iter().collect(), Some(hold)).await;
        let held = self.load(&[key]).await;
        assert!(held.marks.is_pending() && held.unsettled.is_empty(), "a sample taken now could miss it: {held:?}");
        // A shorter hold does not end a longer one.
        self.join(key, Marks::none(), Some(hold / 8)).await;
        sleep(hold / 4).await;
        assert!(self.load(&[key]).await.marks.is_pending());
        self.after_the_hold().await;
        let loaded = self.load(&[key]).await;
        assert!(loaded.marks.is_unknown() && !loaded.marks.is_pending() && !loaded.unsettled.is_empty(), "{loaded:?}");
        self.settle(&loaded.unsettled, at(9)).await;
        assert_eq!(self.load(&[key]).await.marks, Marks::at(at(9)));
    }

    async fn an_answer_is_as_old_as_its_question(&self) {
        let key = self.known().await;
        let unknown = || self.join(key, Marks::unknown(), Some(self.times.hold));
        unknown().await;
        self.after_the_hold().await;
        let asked = self.load(&[key]).await.unsettled;
        unknown().await;
        self.settle(&asked, at(5)).await;
        assert!(self.load(&[key]).await.marks.is_pending());
        self.after_the_hold().await;
        self.settle(&asked, at(6)).await;
        let loaded = self.load(&[key]).await;
        assert!(loaded.marks.is_unknown(), "an answer to an earlier question was taken: {loaded:?}");
        self.settle(&loaded.unsettled, at(7)).await;
        assert!(self.load(&[key]).await.marks.covers(&Marks::at(at(7))));
    }

    async fn open_ends_are_settled_in_their_own_epoch(&self) {
        let marks = |positions: &[Position]| -> Marks { positions.iter().copied().map(Mark::At).collect() };
        for (sample, expected) in [(at(150), marks(&[at(150)])), (of(2, 150), marks(&[at(90), END, of(2, 150)]))] {
            let key = self.known().await;
            self.join(key, Marks::at(at(90)), None).await;
            self.join(key, Marks::at(END), Some(self.times.hold)).await;
            assert!(self.load(&[key]).await.unsettled.is_empty(), "it is held");
            self.after_the_hold().await;
            let loaded = self.load(&[key]).await;
            assert!(loaded.marks.covers(&Marks::at(END)) && !loaded.marks.is_unknown(), "{loaded:?}");
            self.settle(&loaded.unsettled, sample).await;
            assert_eq!(self.load(&[key]).await.marks, expected);
        }
    }

    async fn acknowledges_what_was_told(&self) {
        let told = Marks::at(at(120));
        let lost = Mark::Lost(Lost { epoch: Epoch::new(2), was: Epoch::new(1) });
        for (marks, expected) in [
            (vec![Mark::At(at(120))], vec![]),
            (vec![Mark::At(at(121))], vec![Mark::At(at(121))]),
            (vec![Mark::At(at(120)), Mark::At(of(2, 130))], vec![Mark::At(of(2, 130))]),
            (vec![Mark::At(at(90)), lost], vec![lost]),
        ] {
            let key = self.known().await;
            self.join(key, Marks::at(at(1)), None).await;
            self.join(key, marks.into_iter().collect(), None).await;
            self.acknowledge(key, &told).await;
            assert_eq!(self.load(&[key]).await.marks, expected.into_iter().collect());
        }
        let key = self.known().await;
        self.join(key, [Mark::At(at(120)), Mark::Unknown].into_iter().collect(), Some(self.times.hold)).await;
        self.acknowledge(key, &told).await;
        assert_eq!(self.load(&[key]).await.marks, Marks::pending(), "it ends no hold");
        self.after_the_hold().await;
        assert_eq!(self.load(&[key]).await.marks, Marks::unknown(), "and answers no doubt");
        // Of somebody of whom nothing is known.
        self.acknowledge(random_key(), &told).await;
    }

    async fn more_branches_than_fit_are_unknown(&self) {
        let key = self.known().await;
        for epoch in (2..).take(2 * MAX_POSITIONS) {
            self.join(key, Marks::at(of(epoch, 1)), None).await;
        }
        let loaded = self.load(&[key]).await;
        assert!(loaded.marks.is_unknown() && loaded.marks.positions().len() <= MAX_POSITIONS, "{loaded:?}");
        let newest = of(2 * u32::try_from(MAX_POSITIONS).unwrap_or(16) + 1, 1);
        assert!(loaded.marks.positions().contains(&newest), "the smallest ones go: {loaded:?}");
        self.settle(&loaded.unsettled, newest).await;
        assert!(!self.load(&[key]).await.marks.is_unknown());
    }

    async fn a_dropped_join_harms_nobody(&self) {
        let key = self.known().await;
        self.join(key, Marks::at(at(10)), None).await;
        for offset in 11..40 {
            let mut join = pin!(self.store.join(&[key], &Update { marks: Marks::at(at(offset)), hold: None }));
            poll_fn(|cx| {
                let _ = join.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
        }
        self.join(key, Marks::at(at(40)), None).await;
        assert_eq!(self.load(&[key]).await.marks, Marks::at(at(40)));
    }

    async fn what_expires_is_still_covered(&self) {
        let key = self.known().await;
        let mark = Marks::at(at(800));
        self.join(key, mark.clone(), None).await;
        let doubtful = self.known().await;
        self.join(doubtful, Marks::unknown(), Some(self.times.hold)).await;
        let until = Instant::now() + 3 * self.times.ttl;
        while Instant::now() < until {
            let now = self.required(key).await;
            assert!(now.covers(&mark) || now.is_unknown() || now.is_pending(), "{mark:?} has become {now:?}");
            let now = self.required(doubtful).await;
            assert!(now.is_unknown() || now.is_pending(), "a doubt has become {now:?}");
            sleep(self.times.ttl / 8).await;
        }
    }

    async fn never_demands_less_than_a_map_that_forgets_nothing(&self) {
        let hold = self.times.hold;
        let log = |step: u64| at(10_000 + step);
        let mut keys = Vec::new();
        for _ in 0..12 {
            keys.push(self.known().await);
        }
        let mut model: HashMap<SubjectKey, Known> = HashMap::new();
        let mut asked: Vec<(u64, Vec<Unsettled>)> = Vec::new();
        for step in 0..300 {
            let key = keys[fastrand::usize(..keys.len())];
            let known = model.entry(key).or_insert_with(Known::nothing);
            match fastrand::u8(..8) {
                0..=2 => {
                    let position = at(fastrand::u64(1..1000));
                    self.join(key, Marks::at(position), None).await;
                    known.marks.add(Mark::At(position));
                }
                3 => {
                    // Held from when it was asked for.
                    let until = Instant::now() + hold;
                    self.join(key, Marks::none(), Some(hold)).await;
                    known.held_until = known.held_until.max(until);
                }
                // A write whose place nobody knows: committed by the end of its hold.
                4 => {
                    let until = Instant::now() + hold;
                    self.join(key, Marks::at(END), Some(hold)).await;
                    known.held_until = known.held_until.max(until);
                    known.doubt = Some(log(step));
                }
                5 => asked.push((step, self.load(&[key]).await.unsettled.to_vec())),
                // Answers arrive in any order, and late: each was sampled when it was asked for.
                6 if !asked.is_empty() => {
                    let (since, unsettled) = asked.swap_remove(fastrand::usize(..asked.len()));
                    self.settle(&unsettled, log(since)).await;
                }
                _ => sleep(hold.mul_f64(fastrand::f64() / 4.0)).await,
            }
            for (key, Known { marks, held_until, doubt }) in &model {
                let found = self.required(*key).await;
                let is_held = *held_until > Instant::now();
                let in_doubt = found.is_unknown() || found.is_pending();
                assert!(in_doubt || found.covers(marks), "it must see {marks:?} but {found:?}");
                assert!(found.is_pending() || !is_held, "a hold was dropped: {found:?}");
                let is_open = found.is_open_in(Epoch::new(1));
                let is_covered = is_open || doubt.is_none_or(|doubt| found.covers(&Marks::at(doubt)));
                assert!(in_doubt || is_covered, "it is in doubt since {doubt:?}, but {found:?}");
            }
        }
    }
}

/// What a map that never forgets would know.
struct Known {
    marks: Marks,
    held_until: Instant,
    /// A sample from here on stands for the last write whose place nobody knew.
    doubt: Option<Position>,
}

impl Known {
    fn nothing() -> Self {
        Self { marks: Marks::none(), held_until: Instant::now(), doubt: None }
    }
}
