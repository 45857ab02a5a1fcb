//! Marks in several independent stores, of which some may be away or have forgotten.
//!
//! Marks are joined, so no store has to agree with another: a mark that was taken by `W` of `N` stores is among the answers
//! of any `R` of them when `W + R > N` (Gifford, "Weighted Voting for Replicated Data", 1979).
//!
//! A store that may have forgotten says so of every subject. As long as `R` others are certain, its doubt says nothing: what
//! was promised is among their answers.

mod member;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use ryw_core::{
    Loaded, MarkStore, Marks, Position, Stamp, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use tokio::time::{Instant, timeout_at};

use member::{Member, Order};

/// As many as a stamp has room for.
const MAX_STORES: usize = 16;
const TAG_BITS: u32 = MAX_STORES.ilog2();
/// Where all should answer, those that are later than enough others get as much time again, and this at least.
const GRACE: Duration = Duration::from_millis(10);
/// The same where it is rare, and one that misses it tells the session of its loss once more.
const LONG_GRACE: Duration = Duration::from_millis(50);

/// Keeps marks in several stores at once. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use ryw_core::MarkStore;
/// use ryw_redis::{QuorumError, QuorumStore};
///
/// # fn example(stores: [Arc<dyn MarkStore>; 3]) -> Result<(), QuorumError> {
/// // Written to two of three, read from two of three: one can be away, and no mark is lost with it.
/// let store = QuorumStore::new(stores, 2, 2)?;
/// assert_eq!(store.available(), 3);
/// # Ok(()) }
/// ```
///
/// An answer comes as soon as enough stores have given theirs; a write goes on to the others after that. One that fails, or
/// has not answered within a second, is left alone for 50 ms, and longer each time, up to a second.
///
/// Where fewer than `R` stores are certain of a subject (a write's outcome is unknown, or too many stores have forgotten),
/// all are asked, so that the doubt is settled everywhere at once.
///
/// # Cancellation
/// As with any store: a join that was started may still take effect, in some of the stores.
#[derive(Clone)]
pub struct QuorumStore(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    write: usize,
    read: usize,
}

/// Numbers that make no quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a write quorum of {write} and a read quorum of {read} of {stores} stores can miss each other: write + read has to be \
     more than the number of stores, each between 1 and that number, and there can be 16 stores at most"
)]
pub struct QuorumError {
    stores: usize,
    write: usize,
    read: usize,
}

/// The answers of those who were asked, as they come.
type Answers<T> = FuturesUnordered<Pin<Box<dyn Future<Output = (usize, Result<T, StoreError>)> + Send>>>;

impl QuorumStore {
    /// A store over these, whose writes are taken by `write` of them and whose reads ask `read` of them.
    ///
    /// # Errors
    /// [`QuorumError`] unless `write + read` is more than the number of stores.
    pub fn new(
        stores: impl IntoIterator<Item = Arc<dyn MarkStore>>,
        write: usize,
        read: usize,
    ) -> Result<Self, QuorumError> {
        let members: Vec<_> = stores.into_iter().map(Member::new).collect();
        let count = members.len();
        let is_quorum = |size| (1..=count).contains(&size);
        if !is_quorum(write) || !is_quorum(read) || write + read <= count || count > MAX_STORES {
            return Err(QuorumError { stores: count, write, read });
        }
        Ok(Self(Arc::new(Inner { members, write, read })))
    }

    /// As [`new`](Self::new), with the smallest quorums that any two of meet: more than half of the stores.
    ///
    /// # Errors
    /// [`QuorumError`] without stores, or with more than 16.
    pub fn majority(stores: impl IntoIterator<Item = Arc<dyn MarkStore>>) -> Result<Self, QuorumError> {
        let stores: Vec<_> = stores.into_iter().collect();
        let majority = stores.len() / 2 + 1;
        Self::new(stores, majority, majority)
    }

    /// How many stores have answered when they were last asked.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.members.iter().filter(|member| member.answers()).count()
    }

    /// Whether enough stores have answered, when they were last asked, to take writes and to answer reads.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.available() >= self.0.write.max(self.0.read)
    }
}

impl Inner {
    /// Asks those that are worth it; all when those would not be enough.
    fn ask<T, Q>(self: &Arc<Self>, enough: usize, order: Order, question: Q) -> Answers<T>
    where
        T: Unpin + Send + 'static,
        Q: Fn(usize, &dyn MarkStore) -> Option<StoreFuture<T>>,
    {
        let worth: Vec<_> = self.members.iter().map(Member::is_worth_asking).collect();
        let all = worth.iter().filter(|worth| **worth).count() < enough;
        let ask = |(number, member): (usize, &Member)| {
            let answer = (all || worth[number]).then(|| question(number, &*member.store)).flatten()?;
            let inner = Arc::clone(self);
            let answer = async move { (number, inner.members[number].ask(order, answer).await) };
            Some(Box::pin(answer) as Pin<Box<_>>)
        };
        self.members.iter().enumerate().filter_map(ask).collect()
    }

    async fn load(self: Arc<Self>, keys: Vec<SubjectKey>) -> Result<Loaded, StoreError> {
        let mut answers = self.ask(self.read, Order::Any, |_, store| Some(store.load(&keys)));
        let is_certain =
            |loaded: &Loaded| !loaded.marks.is_unknown() && !loaded.incomplete && loaded.unsettled.is_empty();
        let mut loaded = gather(&mut answers, self.read, GRACE, is_certain).await?;
        if loaded.good >= self.read {
            loaded.answers.retain(|(_, loaded)| is_certain(loaded));
        }
        let mut all = Loaded::default();
        for (number, loaded) in loaded.answers {
            let Loaded { marks, floor, unsettled, floored, has_entry, incomplete } = loaded;
            let tagged = |one: Unsettled| Unsettled { stamp: tag(one.stamp, number), ..one };
            all.marks.join(&marks);
            all.floor.join(&floor);
            all.unsettled.extend(unsettled.into_iter().map(tagged));
            all.floored.extend(floored.into_iter().map(tagged));
            all.has_entry |= has_entry;
            all.incomplete |= incomplete;
        }
        Ok(all)
    }

    async fn join(self: Arc<Self>, keys: Vec<SubjectKey>, update: Update) -> Result<(), StoreError> {
        let mut answers = self.ask(self.write, Order::AmongJoins, |_, store| Some(store.join(&keys, &update)));
        gather(&mut answers, self.write, GRACE, |()| true).await?;
        go_on(answers);
        Ok(())
    }

    async fn settle(self: Arc<Self>, unsettled: Vec<Unsettled>, at: Option<Position>) -> Result<(), StoreError> {
        if unsettled.is_empty() {
            return Ok(());
        }
        let mut answers = self.ask(1, Order::Any, |number, store| {
            let of_store = unsettled.iter().filter_map(|one| {
                let (of, stamp) = untag(one.stamp);
                (of == number).then_some(Unsettled { stamp, ..*one })
            });
            let of_store: Vec<_> = of_store.collect();
            (!of_store.is_empty()).then(|| store.settle(&of_store, at))
        });
        // Whoever is not settled is in doubt still, and harms nobody.
        gather(&mut answers, 1, GRACE, |()| false).await?;
        go_on(answers);
        Ok(())
    }

    async fn acknowledge(self: Arc<Self>, keys: Vec<SubjectKey>, told: Marks) -> Result<(), StoreError> {
        let mut answers = self.ask(self.write, Order::AfterJoins, |_, store| Some(store.acknowledge(&keys, &told)));
        gather(&mut answers, self.write, LONG_GRACE, |()| false).await?;
        go_on(answers);
        Ok(())
    }
}

/// What was answered, and how much of it is good.
struct Gathered<T> {
    answers: Vec<(usize, T)>,
    good: usize,
}

/// Returns when `enough` good answers are there. Once that many of any kind are, the others get as much time again.
async fn gather<T>(
    asked: &mut Answers<T>,
    enough: usize,
    grace: Duration,
    is_good: impl Fn(&T) -> bool,
) -> Result<Gathered<T>, StoreError> {
    let started = Instant::now();
    let (mut gathered, mut failure, mut until) = (Gathered { answers: Vec::new(), good: 0 }, None, None);
    loop {
        let answer = match until {
            Some(until) => timeout_at(until, asked.next()).await.unwrap_or_default(),
            None => asked.next().await,
        };
        match answer {
            Some((number, Ok(answer))) => {
                gathered.good += usize::from(is_good(&answer));
                gathered.answers.push((number, answer));
            }
            Some((_, Err(error))) => failure = Some(error),
            None if until.is_some() => return Ok(gathered),
            None => return Err(failure.unwrap_or_else(|| StoreError::new(StoreErrorKind::Unavailable))),
        }
        if gathered.good >= enough {
            return Ok(gathered);
        }
        if gathered.answers.len() >= enough && until.is_none() {
            until = Some(Instant::now() + started.elapsed().max(grace));
        }
    }
}

/// Those that are late hear of it all the same. Ends with their deadline.
fn go_on<T: Send + 'static>(mut late: Answers<T>) {
    if !late.is_empty() {
        drop(tokio::spawn(async move { while late.next().await.is_some() {} }));
    }
}

const fn tag(stamp: Stamp, store: usize) -> Stamp {
    Stamp(stamp.0 << TAG_BITS | store as u64)
}

const fn untag(stamp: Stamp) -> (usize, Stamp) {
    ((stamp.0 % MAX_STORES as u64) as usize, Stamp(stamp.0 >> TAG_BITS))
}

impl MarkStore for QuorumStore {
    fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
        StoreFuture::boxed(Arc::clone(&self.0).load(keys.to_vec()))
    }

    fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
        StoreFuture::boxed(Arc::clone(&self.0).join(keys.to_vec(), update.clone()))
    }

    fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
        StoreFuture::boxed(Arc::clone(&self.0).settle(unsettled.to_vec(), at))
    }

    /// By all that answer in time: one that has not heard of it tells of the loss once more.
    fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
        StoreFuture::boxed(Arc::clone(&self.0).acknowledge(keys.to_vec(), told.clone()))
    }
}

impl fmt::Debug for QuorumStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { members, write, read } = &*self.0;
        f.debug_struct("QuorumStore")
            .field("stores", &members.len())
            .field("write", write)
            .field("read", read)
            .field("available", &self.available())
            .finish()
    }
}
