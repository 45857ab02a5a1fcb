//! What marks cost in memory and in time, beside maps and caches that keep the same without any of its guarantees.

use std::{
    error::Error,
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use ryw_costs::{alloc::allocated, clock::each};
use tokio::time::Instant;
use tower_ryw::{ClusterId, Epoch, LocalStore, MarkStore, Marks, Position, SubjectKey, Update};

use crate::{
    plot::{Lines, Series},
    report::{Cell, Goal, Section, Spread, Table, number},
};

/// Each is asked so often in a turn.
const OPERATIONS: u64 = 100_000;
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(60);
/// Of all operations, the share of reads where threads contend.
const READS: u64 = 9;
const MARKED: u64 = 1_000_000;

/// What an entry is in the others: as much as a mark has to say.
#[derive(Clone, Copy, Debug)]
struct Entry {
    position: Position,
    held_until: u32,
    touched: u32,
}

impl Entry {
    fn is_over(&self) -> bool {
        black_box(self.position).offset() > 0 && self.held_until <= self.touched
    }
}

fn entry(offset: u64) -> Entry {
    Entry { position: at(offset), held_until: 0, touched: 0 }
}

fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

/// The key of a session: spread as a keyed hash is.
fn key(number: u64) -> SubjectKey {
    let mix = |seed: u64| {
        let mut z = number.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(1).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(2).to_le_bytes());
    SubjectKey::from_bytes(bytes)
}

trait Kept: Sync {
    const NAME: &'static str;

    /// With room for so many.
    fn new(capacity: u64) -> Self;
    fn read(&self, key: SubjectKey) -> bool;
    fn write(&self, key: SubjectKey, offset: u64);
    /// What it has put off.
    fn finish(&self) {}
}

impl Kept for LocalStore {
    const NAME: &'static str = "tower-ryw";

    fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        Self::builder().capacity(capacity).ttl(Duration::from_secs(3600)).build()
    }

    fn read(&self, key: SubjectKey) -> bool {
        self.load(&[key]).now().is_ok_and(|loaded| loaded.is_ok_and(|loaded| loaded.has_entry))
    }

    fn write(&self, key: SubjectKey, offset: u64) {
        drop(self.join(&[key], &Update { marks: Marks::at(at(offset)), hold: None }));
    }
}

impl Kept for moka::sync::Cache<SubjectKey, Entry> {
    const NAME: &'static str = "moka";

    fn new(capacity: u64) -> Self {
        Self::builder().max_capacity(capacity).time_to_live(Duration::from_secs(3600)).build()
    }

    fn read(&self, key: SubjectKey) -> bool {
        self.get(&key).is_some_and(|entry| entry.is_over())
    }

    fn write(&self, key: SubjectKey, offset: u64) {
        self.insert(key, entry(offset));
    }

    fn finish(&self) {
        self.run_pending_tasks();
    }
}

impl Kept for quick_cache::sync::Cache<SubjectKey, Entry> {
    const NAME: &'static str = "quick_cache";

    fn new(capacity: u64) -> Self {
        Self::new(usize::try_from(capacity).unwrap_or(usize::MAX))
    }

    fn read(&self, key: SubjectKey) -> bool {
        self.get(&key).is_some_and(|entry| entry.is_over())
    }

    fn write(&self, key: SubjectKey, offset: u64) {
        self.insert(key, entry(offset));
    }
}

impl Kept for dashmap::DashMap<SubjectKey, Entry> {
    const NAME: &'static str = "dashmap";

    fn new(_: u64) -> Self {
        Self::new()
    }

    fn read(&self, key: SubjectKey) -> bool {
        self.get(&key).is_some_and(|entry| entry.is_over())
    }

    fn write(&self, key: SubjectKey, offset: u64) {
        self.insert(key, entry(offset));
    }
}

impl Kept for papaya::HashMap<SubjectKey, Entry> {
    const NAME: &'static str = "papaya";

    fn new(_: u64) -> Self {
        Self::new()
    }

    fn read(&self, key: SubjectKey) -> bool {
        self.pin().get(&key).is_some_and(Entry::is_over)
    }

    fn write(&self, key: SubjectKey, offset: u64) {
        self.pin().insert(key, entry(offset));
    }
}

struct Measured {
    bytes: f64,
    /// ns, as are those that follow.
    insert: f64,
    read: Spread,
    write: Spread,
}

fn sized<K: Kept>(sessions: u64) -> Measured {
    // A little room, so that caches evict nothing.
    let (allocated, (kept, insert)) = allocated(|| {
        let kept = K::new(sessions + sessions / 4);
        let insert = each(sessions, || (0..sessions).for_each(|number| kept.write(key(number), number)));
        kept.finish();
        (kept, insert)
    });
    let turn = |one: &dyn Fn(SubjectKey)| {
        let mut pick = fastrand::Rng::with_seed(7);
        let turns = (0..TURNS).map(|_| {
            each(OPERATIONS, || {
                for _ in 0..OPERATIONS {
                    one(key(pick.u64(..sessions)));
                }
            })
        });
        Spread::of(turns.collect())
    };
    let read = turn(&|key| {
        black_box(kept.read(key));
    });
    let write = turn(&|key| kept.write(key, 7));
    Measured { bytes: allocated.kept as f64 / sessions as f64, insert, read, write }
}

/// Millions of operations per second.
fn contended<K: Kept>(kept: &K, threads: u64) -> f64 {
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for number in 0..threads {
            let (over, count) = (&over, &count);
            scope.spawn(move || {
                let mut pick = fastrand::Rng::with_seed(number);
                while !over.load(Relaxed) {
                    for turn in 0..100 {
                        let key = key(pick.u64(..MARKED));
                        if turn % 10 < READS {
                            black_box(kept.read(key));
                        } else {
                            kept.write(key, turn);
                        }
                    }
                    count.fetch_add(100, Relaxed);
                }
            });
        }
        // Nobody unparks this thread; if it wakes early all the same, the rate is of a shorter turn.
        thread::park_timeout(TURN);
        over.store(true, Relaxed);
    });
    count.load(Relaxed) as f64 / started.elapsed().as_secs_f64() / 1e6
}

fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

type Moka = moka::sync::Cache<SubjectKey, Entry>;
type Quick = quick_cache::sync::Cache<SubjectKey, Entry>;
type Dash = dashmap::DashMap<SubjectKey, Entry>;
type Papaya = papaya::HashMap<SubjectKey, Entry>;

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    let mut sizes = vec![10_000, 100_000, MARKED];
    if !quick && available_bytes() > 8 << 30 {
        sizes.push(10 * MARKED);
    }
    let mut table = Table::new(["sessions", "map", "bytes per session", "insert, ns", "read, ns", "write, ns"]);
    let mut reads = Series::new();
    let mut of_ours = Vec::new();
    for sessions in sizes {
        let all = [
            (LocalStore::NAME, sized::<LocalStore>(sessions)),
            (Moka::NAME, sized::<Moka>(sessions)),
            (Quick::NAME, sized::<Quick>(sessions)),
            (Dash::NAME, sized::<Dash>(sessions)),
            (Papaya::NAME, sized::<Papaya>(sessions)),
        ];
        for (name, Measured { bytes, insert, read, write }) in all {
            table.row([
                Cell::Number(sessions as f64),
                name.into(),
                Cell::Number(bytes),
                Cell::Number(insert),
                read.into(),
                write.into(),
            ]);
            if !reads.iter().any(|(known, _)| known == name) {
                reads.push((name.to_owned(), Vec::new()));
            }
            if let Some((_, points)) = reads.iter_mut().find(|(known, _)| known == name) {
                points.push((sessions as f64, read.median));
            }
            if name == LocalStore::NAME {
                of_ours.push((sessions, bytes));
            }
        }
    }
    let (contention, series) = threads();
    let at_a_million = of_ours.iter().find(|(sessions, _)| *sessions == MARKED).map_or(f64::NAN, |(_, bytes)| *bytes);
    let growth = |name: &str| {
        let points = reads.iter().find(|(known, _)| known == name).map(|(_, points)| points.as_slice());
        match points {
            Some([(_, first), .., (_, last)]) => last / first,
            _ => f64::NAN,
        }
    };
    let (ours, theirs) = (growth(LocalStore::NAME), growth(Dash::NAME));
    let plot = |title: &str, x, y, series| Lines { title: title.to_owned(), x, y, log_x: true, series }.svg();
    Ok(Section {
        id: "store",
        title: "Local marks",
        text: "Each map keeps as much per session as a mark says, under a key of 16 random bytes. Bytes are those asked of the \
               allocator and not given back; ns are processor time. Only tower-ryw's store keeps its promise when it evicts; dashmap and papaya never \
               evict. Reads and writes are of random sessions, so beyond some 100 000 they pay for memory outside of the \
               processor's caches."
            .into(),
        tables: vec![table, contention],
        goals: vec![
            Goal {
                what: "memory per marked session, at a million",
                goal: "≤ 64 B",
                measured: format!("{} B", number(at_a_million)),
                met: at_a_million <= 64.0,
                why: "",
            },
            Goal {
                what: "local marks: a read at the largest size, beside 10 000 sessions",
                goal: "flat, but for the processor's caches: at most what dashmap pays for them",
                measured: format!("{}×; dashmap {}×", number(ours), number(theirs)),
                met: ours <= theirs,
                why: "a bucket and an entry lie in two places",
            },
        ],
        plots: vec![
            ("store-read.svg".into(), plot("Reading a session's marks", "sessions", "ns per read", reads)),
            (
                "store-threads.svg".into(),
                plot("Nine reads and a write, a million sessions", "threads", "million operations per second", series),
            ),
        ],
    })
}

fn threads() -> (Table, Series) {
    fn filled<K: Kept>() -> K {
        let kept = K::new(MARKED + MARKED / 4);
        (0..MARKED).for_each(|number| kept.write(key(number), number));
        kept.finish();
        kept
    }
    let (ours, moka, quick) = (filled::<LocalStore>(), filled::<Moka>(), filled::<Quick>());
    let (dash, papaya) = (filled::<Dash>(), filled::<Papaya>());
    let names = [LocalStore::NAME, Moka::NAME, Quick::NAME, Dash::NAME, Papaya::NAME];
    let mut table = Table::new(["threads, million operations/s", names[0], names[1], names[2], names[3], names[4]]);
    let mut series = names.map(|name| (name.to_owned(), Vec::new())).to_vec();
    for threads in [1, 2, 4, 8, 16] {
        let mut turns: [Vec<f64>; 5] = Default::default();
        for _ in 0..TURNS {
            let rates = [
                contended(&ours, threads),
                contended(&moka, threads),
                contended(&quick, threads),
                contended(&dash, threads),
                contended(&papaya, threads),
            ];
            turns.iter_mut().zip(rates).for_each(|(turns, rate)| turns.push(rate));
        }
        let [a, b, c, d, e] = turns.map(Spread::of);
        for ((_, points), spread) in series.iter_mut().zip([a, b, c, d, e]) {
            points.push((threads as f64, spread.median));
        }
        table.row([Cell::Number(threads as f64), a.into(), b.into(), c.into(), d.into(), e.into()]);
    }
    (table, series)
}
