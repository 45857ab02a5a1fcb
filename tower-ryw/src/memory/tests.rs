use std::collections::HashMap;

use proptest::prelude::*;
use ryw_core::{ClusterId, Epoch, Lost, Mark, Marks};

use super::*;

fn key(n: u64) -> SubjectKey {
    // Spread as a hash would.
    let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&spread.to_le_bytes());
    SubjectKey::from_bytes(bytes)
}

fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

/// What subject `n` must see, its own marks and the floor's together.
fn load(store: &LocalStore, n: u64) -> Loaded {
    let mut loaded = store.load(&[key(n)]).now().unwrap().unwrap();
    loaded.marks.join(&loaded.floor);
    loaded
}

fn join(store: &LocalStore, n: u64, marks: Marks, hold: Option<Duration>) {
    store.join(&[key(n)], &Update { marks, hold }).now().unwrap().unwrap();
}

/// A store whose floor has been settled at position 0.
fn settled(capacity: usize, subjects: u64) -> LocalStore {
    let store = LocalStore::builder().capacity(capacity).build();
    for n in 0..subjects {
        let unsettled = load(&store, n).unsettled;
        store.settle(&unsettled, Some(at(0))).now().unwrap().unwrap();
    }
    store
}

#[tokio::test(start_paused = true)]
async fn a_new_store_knows_that_it_knows_nothing() {
    let store = LocalStore::new();
    let loaded = load(&store, 1);
    assert!(loaded.marks.is_unknown());
    store.settle(&loaded.unsettled, Some(at(70))).now().unwrap().unwrap();
    assert_eq!(load(&store, 1).marks, Marks::at(at(70)), "the floor is the sampled position");
    assert!(store.is_empty(), "and nobody got an entry for it");
    for other in 2..1000 {
        assert_eq!(load(&store, other).marks, Marks::at(at(70)), "nor has anybody else to ask");
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_for_the_start_is_enough_for_those_who_have_written_since() {
    let store = LocalStore::new();
    (0..1000).for_each(|n| join(&store, n, Marks::at(at(50 + n)), None));
    let unsettled = load(&store, 7).unsettled;
    assert!(load(&store, 7).marks.is_unknown(), "it may have written before");
    settle(&store, &unsettled, at(70));
    for n in (0..1000).filter(|n| *n != 7) {
        let loaded = load(&store, n);
        assert_eq!((loaded.marks, &loaded.unsettled[..]), (Marks::at(at(70.max(50 + n))), &[][..]), "{n}");
    }
    join(&store, 2000, Marks::at(at(60)), None);
    assert_eq!(load(&store, 2000).marks, Marks::at(at(70)), "nor does whoever comes later ask");
    // After a failover the answer may lie beyond the fork, and it is not what this session has written.
    let loaded = load(&store, 3);
    settle(&store, &loaded.floored, of(2, 65));
    assert_eq!(load(&store, 3).marks, [Mark::At(at(53)), Mark::At(of(2, 65))].into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_the_start_is_still_unknown_once_others_have_forgotten_it() {
    let store = LocalStore::builder().capacity(1).build();
    let early = load(&store, 0).unsettled;
    join(&store, 0, Marks::at(at(9)), None);
    join(&store, 1, Marks::none(), None);
    assert!(load(&store, 0).marks.is_unknown(), "its entry went, and the start was never answered for");
    settle(&store, &early, at(5));
    assert_eq!(load(&store, 0).marks, Marks::at(at(9)));
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_after_the_start_is_not_settled_with_it() {
    let store = LocalStore::builder().capacity(64).build();
    let early = load(&store, 1).unsettled;
    // Every part forgets somebody whose write nobody knows the place of.
    (0..2000).for_each(|n| join(&store, n, Marks::unknown(), None));
    store.settle(&early, Some(at(70))).now().unwrap().unwrap();
    assert!((3000..4000).all(|n| load(&store, n).marks.is_unknown()), "the sample may be from before that");
}

#[tokio::test(start_paused = true)]
async fn an_evicted_mark_is_still_honoured() {
    let store = settled(1000, 3000);
    for n in 0..3000 {
        join(&store, n, Marks::at(at(n + 1)), None);
    }
    assert!(store.len() <= 1024, "{}", store.len());
    for n in 0..3000 {
        assert!(load(&store, n).marks.covers(&Marks::at(at(n + 1))), "mark {n} was dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn any_capacity_is_a_bound_and_not_a_reservation() {
    for capacity in [0, 1, 63, 65, usize::MAX] {
        let store = settled(capacity, 100);
        (0..100).for_each(|n| join(&store, n, Marks::at(at(n + 1)), None));
        assert!((0..100).all(|n| load(&store, n).marks.covers(&Marks::at(at(n + 1)))), "{capacity}");
        assert_eq!(store.len() == 100, capacity == usize::MAX, "{capacity}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_entry_written_longest_ago_goes_first() {
    let store = settled(1, 8);
    for n in [1, 2, 1, 3] {
        join(&store, n, Marks::at(at(n * 100)), None);
    }
    assert_eq!(store.len(), 1);
    assert_eq!(load(&store, 9).marks, Marks::at(at(200)), "the floor holds 1 and 2");
    assert_eq!(load(&store, 3).marks, Marks::at(at(300)));
}

#[tokio::test(start_paused = true)]
async fn an_expired_mark_is_still_honoured_and_takes_no_room() {
    let store = LocalStore::builder().capacity(1).ttl(Duration::from_secs(10)).build();
    store.settle(&load(&store, 1).unsettled, Some(at(0))).now().unwrap().unwrap();
    join(&store, 1, Marks::at(at(500)), None);
    tokio::time::advance(Duration::from_millis(9900)).await;
    assert_eq!((load(&store, 1).marks, store.len()), (Marks::at(at(500)), 1));
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!((load(&store, 1).marks, store.len()), (Marks::at(at(500)), 0));
}

/// Also while nobody uses the store.
#[tokio::test(start_paused = true)]
async fn no_mark_is_told_to_be_older_than_marks_become() {
    let store = LocalStore::builder().capacity(100_000).ttl(Duration::from_secs(10)).build();
    (0..70_000).for_each(|n| join(&store, n, Marks::at(at(500)), None));
    tokio::time::advance(Duration::from_secs(6)).await;
    join(&store, 70_000, Marks::at(at(500)), None);
    assert_eq!((store.len(), store.ages().unwrap().0), (70_001, Duration::from_secs(6)));
    tokio::time::advance(Duration::from_secs(6)).await;
    let (oldest, mean) = store.ages().unwrap();
    assert_eq!((oldest, mean), (Duration::from_secs(6), Duration::from_secs(6)), "more had expired than go at once");
    assert_eq!(store.len(), 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!((store.len(), store.ages()), (0, None));
    assert_eq!(load(&store, 1).marks.positions(), [at(500)], "it is honoured all the same");
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_pending_then_unknown_until_settled() {
    let store = settled(10, 1);
    let window = Duration::from_secs(2);
    join(&store, 0, Marks::unknown(), Some(window));
    assert!(load(&store, 0).marks.is_pending() && !load(&store, 0).marks.is_unknown());
    assert!(load(&store, 0).unsettled.is_empty(), "a write on its way can't be settled");
    tokio::time::advance(window + Duration::from_millis(100)).await;

    let loaded = load(&store, 0);
    assert!(!loaded.marks.is_pending() && loaded.marks.is_unknown());
    // Another unknown outcome comes in between: the sample is too old for it.
    join(&store, 0, Marks::unknown(), Some(window));
    store.settle(&loaded.unsettled, Some(at(5))).now().unwrap().unwrap();
    assert!(load(&store, 0).marks.is_pending());
    tokio::time::advance(window + Duration::from_millis(100)).await;
    let loaded = load(&store, 0);
    assert!(loaded.marks.is_unknown());
    store.settle(&loaded.unsettled, Some(at(9))).now().unwrap().unwrap();
    assert_eq!(load(&store, 0).marks, Marks::at(at(9)));
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_again_is_not_settled_by_a_sample_for_what_was_before() {
    let store = settled(10, 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    join(&store, 0, Marks::unknown(), None);
    let loaded = load(&store, 0);
    join(&store, 0, Marks::unknown(), None);
    store.settle(&loaded.unsettled, Some(at(5))).now().unwrap().unwrap();
    let again = load(&store, 0);
    assert!(again.marks.is_unknown(), "{again:?}");
    store.settle(&again.unsettled, Some(at(9))).now().unwrap().unwrap();
    assert_eq!(load(&store, 0).marks, Marks::at(at(9)));
}

#[tokio::test(start_paused = true)]
async fn holds_and_unknowns_survive_eviction() {
    let store = settled(1, 2);
    join(&store, 0, Marks::unknown(), Some(Duration::from_secs(2)));
    join(&store, 1, Marks::at(at(3)), None);
    assert!(load(&store, 0).marks.is_pending(), "the floor is held");
    tokio::time::advance(Duration::from_millis(2100)).await;
    let loaded = load(&store, 0);
    assert!(loaded.marks.is_unknown());
    store.settle(&loaded.unsettled, Some(at(8))).now().unwrap().unwrap();
    assert_eq!(load(&store, 0).marks, Marks::at(at(8)));
}

#[tokio::test(start_paused = true)]
async fn without_positions_a_start_is_held_for_a_window() {
    let store = LocalStore::builder().held_at_start(Duration::from_secs(2)).build();
    assert!(load(&store, 1).marks.is_pending());
    tokio::time::advance(Duration::from_millis(2000)).await;
    assert!(load(&store, 1).marks.is_none());
}

#[tokio::test(start_paused = true)]
async fn marks_of_several_epochs_are_kept_apart() {
    let store = settled(2, 1);
    let other = Position::new(ClusterId::new(1), Epoch::new(2), 5);
    join(&store, 0, Marks::at(at(9)), None);
    join(&store, 0, Marks::at(other), None);
    let expected: Marks = [Mark::At(at(9)), Mark::At(other)].into_iter().collect();
    assert_eq!(load(&store, 0).marks, expected);
    join(&store, 1, Marks::none(), None);
    join(&store, 2, Marks::none(), None);
    assert!(load(&store, 0).marks.covers(&expected), "also after eviction");
}

#[tokio::test(start_paused = true)]
async fn a_floor_outlives_a_failover() {
    let store = settled(1, 2);
    join(&store, 0, Marks::at(at(900)), None);
    join(&store, 1, Marks::at(at(1)), None);
    let loaded = load(&store, 5);
    assert_eq!(loaded.marks, Marks::at(at(900)));
    // The new primary's history does not contain 900; nobody who asks now has written it.
    let now = Position::new(ClusterId::new(1), Epoch::new(2), 600);
    store.settle(&loaded.floored, Some(now)).now().unwrap().unwrap();
    assert_eq!(load(&store, 5).marks, Marks::at(now));
    assert_eq!(load(&store, 1).marks, Marks::at(at(1)), "a session's own marks stay as they are");
}

#[tokio::test(start_paused = true)]
async fn more_branches_than_fit_are_unknown_until_settled() {
    let store = settled(1, 3);
    for epoch in 2..40 {
        join(&store, 0, Marks::at(Position::new(ClusterId::new(1), Epoch::new(epoch), 1)), None);
    }
    for n in [0, 9] {
        let loaded = load(&store, n);
        assert!(loaded.marks.is_unknown(), "{n}");
        store
            .settle(&loaded.unsettled, Some(Position::new(ClusterId::new(1), Epoch::new(40), 1)))
            .now()
            .unwrap()
            .unwrap();
        assert!(!load(&store, n).marks.is_unknown(), "{n}");
        join(&store, 1, Marks::none(), None);
    }
}

fn of(epoch: u32, offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
}

fn acknowledge(store: &LocalStore, n: u64, told: &Marks) {
    store.acknowledge(&[key(n)], told).now().unwrap().unwrap();
}

fn settle(store: &LocalStore, unsettled: &[Unsettled], sample: Position) {
    store.settle(unsettled, Some(sample)).now().unwrap().unwrap();
}

const WINDOW: Duration = Duration::from_secs(2);

async fn after_the_window() {
    tokio::time::advance(WINDOW + Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_takes_what_was_told_and_leaves_what_came_since() {
    let store = settled(100, 10);
    let told = Marks::at(at(120));
    join(&store, 0, told.clone(), None);
    join(&store, 1, Marks::at(at(121)), None);
    join(&store, 2, Marks::at(at(120)), None);
    join(&store, 2, Marks::at(of(2, 130)), None);
    let lost = Lost { epoch: Epoch::new(2), was: Epoch::new(1) };
    join(&store, 3, [Mark::At(at(90)), Mark::Lost(lost)].into_iter().collect(), None);
    for n in [0, 1, 2, 3, 9] {
        acknowledge(&store, n, &told);
    }
    assert!(load(&store, 0).marks.is_none());
    assert_eq!(load(&store, 1).marks, Marks::at(at(121)), "written since");
    assert_eq!(load(&store, 2).marks, Marks::at(of(2, 130)), "written since, in the new epoch");
    assert_eq!(load(&store, 3).marks, Marks::from_iter([Mark::Lost(lost)]), "a loss that was not told");
    assert_eq!(load(&store, 9).marks, Marks::at(at(0)), "nobody's entry, and the floor is not acknowledged");
    assert_eq!(store.len(), 4);

    acknowledge(&store, 3, &Marks::from_iter([Mark::Lost(lost)]));
    assert!(load(&store, 3).marks.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_ends_no_hold_and_answers_no_doubt() {
    let store = settled(100, 2);
    join(&store, 0, [Mark::At(at(120)), Mark::Unknown].into_iter().collect(), Some(WINDOW));
    acknowledge(&store, 0, &Marks::at(at(120)));
    assert_eq!(load(&store, 0).marks, Marks::pending());
    after_the_window().await;
    assert_eq!(load(&store, 0).marks, Marks::unknown());
}

#[tokio::test(start_paused = true)]
async fn an_open_end_is_settled_by_a_sample_of_its_epoch() {
    let end = Position::end_of(ClusterId::new(1), Epoch::new(1));
    let marks = |positions: &[Position]| -> Marks { positions.iter().copied().map(Mark::At).collect() };
    for (sample, expected) in [(at(150), marks(&[at(150)])), (of(2, 150), marks(&[at(90), end, of(2, 150)]))] {
        let store = settled(100, 2);
        join(&store, 0, Marks::at(at(90)), None);
        join(&store, 0, Marks::at(end), Some(WINDOW));
        assert!(load(&store, 0).marks.is_pending() && load(&store, 0).unsettled.is_empty());
        after_the_window().await;
        let loaded = load(&store, 0);
        let open = marks(&[at(90), end]);
        assert_eq!(loaded.marks, open, "not unknown: a failover before the sample has to be told");
        settle(&store, &loaded.unsettled, sample);
        assert_eq!(load(&store, 0).marks, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_doubt_is_not_settled_by_an_earlier_sample() {
    let end = Position::end_of(ClusterId::new(1), Epoch::new(1));
    let store = settled(100, 2);
    join(&store, 0, Marks::at(end), Some(WINDOW));
    after_the_window().await;
    let asked = load(&store, 0).unsettled;
    // Another write of the same session, which the sample under way may not contain.
    join(&store, 0, Marks::at(end), Some(WINDOW));
    settle(&store, &asked, at(150));
    assert!(load(&store, 0).marks.covers(&Marks::at(end)), "while it is held");
    after_the_window().await;
    settle(&store, &asked, at(150));
    assert!(load(&store, 0).marks.covers(&Marks::at(end)), "and after that");
    settle(&store, &load(&store, 0).unsettled, at(160));
    assert_eq!(load(&store, 0).marks, Marks::at(at(160)));
}

#[tokio::test(start_paused = true)]
async fn an_open_end_that_is_forgotten_makes_the_floor_unknown() {
    let end = Position::end_of(ClusterId::new(1), Epoch::new(1));
    let evict = |store: &LocalStore| join(store, 1, Marks::none(), None);
    for spilled in [false, true] {
        let store = settled(1, 3);
        join(&store, 0, Marks::at(end), Some(WINDOW));
        if spilled {
            join(&store, 0, Marks::at(of(2, 5)), None);
        }
        evict(&store);
        assert!(load(&store, 0).marks.is_pending(), "the hold is kept");
        after_the_window().await;
        let loaded = load(&store, 0);
        assert!(loaded.marks.is_unknown() && !loaded.marks.is_open_in(Epoch::new(1)), "{loaded:?}");
        // An earlier question's answer does not stand for what was forgotten since.
        join(&store, 0, Marks::at(end), Some(WINDOW));
        evict(&store);
        after_the_window().await;
        settle(&store, &loaded.unsettled, of(2, 50));
        assert!(load(&store, 0).marks.is_unknown());
        settle(&store, &load(&store, 0).unsettled, of(2, 60));
        assert_eq!(load(&store, 0).marks, Marks::at(of(2, 60)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_floor_is_not_settled_while_it_is_held() {
    let store = settled(1, 3);
    join(&store, 0, Marks::at(at(90)), None);
    join(&store, 0, Marks::unknown(), Some(WINDOW));
    join(&store, 1, Marks::none(), None);
    // Whoever renews a floor from before a failover has a sample from before that write has committed.
    settle(&store, &load(&store, 0).floored, of(2, 50));
    assert!(load(&store, 0).marks.is_pending());
    after_the_window().await;
    assert!(load(&store, 0).marks.is_unknown());
}

/// Sessions that lost nothing are told of no loss: a new entry has no marks that its own session did not make.
#[tokio::test(start_paused = true)]
async fn a_new_entry_inherits_no_loss() {
    let end = Position::end_of(ClusterId::new(1), Epoch::new(1));
    for (update, hold) in [
        (Marks::at(of(2, 95)), None),
        (Marks::unknown(), Some(WINDOW)),
        ([Mark::At(end), Mark::At(of(2, 95)), Mark::Unknown].into_iter().collect(), Some(WINDOW)),
    ] {
        let store = settled(1, 8);
        join(&store, 0, Marks::at(at(900)), None);
        // Evicts it, so the floor is at 900 when a failover at 90 comes.
        join(&store, 1, Marks::none(), None);
        assert_eq!(load(&store, 5).floor, Marks::at(at(900)));
        join(&store, 2, update.clone(), hold);
        let loaded = load(&store, 2);
        let inherited = loaded.marks.positions().contains(&at(900));
        assert!(!inherited, "{update:?}: {loaded:?}");
        // What survived of it still counts: whatever it was, a sample contains it.
        if hold.is_some() {
            assert!(loaded.marks.is_pending());
            after_the_window().await;
        }
        assert!(load(&store, 2).marks.is_unknown());
        settle(&store, &load(&store, 2).unsettled, of(2, 100));
        assert!(load(&store, 2).marks.covers(&Marks::at(of(2, 100))) && !load(&store, 2).marks.is_unknown());
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

proptest! {
    /// Whatever is done to the store, it demands at least what a map that never forgets would.
    #[test]
    fn never_demands_less_than_an_unbounded_map(
        capacity in 1usize..20,
        steps in prop::collection::vec((0u64..40, 1u64..1000, 0u8..7, 0u64..4000), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let hold = Duration::from_secs(1);
            let end = Position::end_of(ClusterId::new(1), Epoch::new(1));
            let store = LocalStore::builder().capacity(capacity).ttl(Duration::from_secs(3)).build();
            let mut model: HashMap<u64, Known> = HashMap::new();
            // The primary's log grows with each step, and a sample is as old as its question.
            let log = |step: u64| at(10_000 + step);
            let mut asked: Vec<(u64, Vec<Unsettled>)> = Vec::new();
            for (step, (n, offset, kind, pause)) in (0u64..).zip(steps) {
                let known = model.entry(n).or_insert_with(Known::nothing);
                match kind {
                    0 | 1 => {
                        join(&store, n, Marks::at(at(offset)), None);
                        known.marks.add(Mark::At(at(offset)));
                    }
                    2 => {
                        join(&store, n, Marks::none(), Some(hold));
                        known.held_until = known.held_until.max(Instant::now() + hold);
                    }
                    // A write whose place nobody knows: committed by the end of its hold.
                    3 => {
                        join(&store, n, Marks::at(end), Some(hold));
                        known.held_until = known.held_until.max(Instant::now() + hold);
                        known.doubt = Some(log(step));
                    }
                    4 => asked.push((step, load(&store, n).unsettled.to_vec())),
                    // Answers arrive in any order, and late: each was sampled when it was asked for.
                    5 => if !asked.is_empty() {
                        let (since, unsettled) = asked.swap_remove(usize::try_from(pause).unwrap() % asked.len());
                        settle(&store, &unsettled, log(since));
                    },
                    _ => tokio::time::advance(Duration::from_millis(pause)).await,
                }
                for (n, Known { marks, held_until, doubt }) in &model {
                    let loaded = load(&store, *n).marks;
                    let in_doubt = loaded.is_unknown() || loaded.is_pending();
                    assert!(in_doubt || loaded.covers(marks), "{n} must see {marks:?} but {loaded:?}");
                    assert!(loaded.is_pending() || *held_until <= Instant::now(), "the hold of {n} was dropped");
                    let is_open = loaded.is_open_in(Epoch::new(1));
                    let is_covered = is_open || doubt.is_none_or(|doubt| loaded.covers(&Marks::at(doubt)));
                    assert!(in_doubt || is_covered, "{n} is in doubt since {doubt:?}, but {loaded:?}");
                }
            }
        });
    }
}
