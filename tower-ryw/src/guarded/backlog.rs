//! What a store did not take, in memory: one entry and one place in line per subject, bounded.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ryw_core::{Marks, SubjectKey, Update};
use tokio::time::Instant;

use crate::{
    clock::Clock,
    outbox::{Entry, Hold, Undelivered},
};

/// Subjects whose marks are kept.
pub(super) const CAPACITY: usize = 100_000;
/// Looked at under one lock while all of them are written down.
const CHUNK: usize = 1024;

pub(super) struct Backlog {
    kept: HashMap<SubjectKey, Kept>,
    /// The same subjects, by their places in line.
    line: BTreeMap<u64, SubjectKey>,
    next_place: u64,
    /// What they take on a disk, and may take there.
    bytes: u64,
    max_bytes: u64,
    pub(super) dropped: u64,
    /// Something is missing, nobody knows whose; until then a write that it told of may be on its way.
    pub(super) doubt: Option<Instant>,
}

/// What a subject's marks would have been joined with.
struct Kept {
    marks: Marks,
    held_until: Option<Instant>,
    since: Instant,
    place: u64,
}

impl Backlog {
    pub(super) fn new(max_bytes: u64) -> Self {
        let (kept, line) = (HashMap::new(), BTreeMap::new());
        Self { kept, line, next_place: 0, bytes: 0, max_bytes, dropped: 0, doubt: None }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is nothing to tell the store.
    pub(super) fn is_settled(&self) -> bool {
        self.line.is_empty() && self.doubt.is_none()
    }

    /// When the subject that waits at the head of the line was kept.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let (_, key) = self.line.first_key_value()?;
        self.kept.get(key).map(|kept| kept.since)
    }

    /// Keeps an update of these subjects, and says whether there was room. What was kept before stays: somebody may have
    /// been promised it.
    pub(super) fn keep(&mut self, keys: &[SubjectKey], update: &Update) -> bool {
        let now = Instant::now();
        let held_until = update.hold.map(|hold| now + hold);
        let mut had_room = true;
        for key in keys {
            if self.has_room(key, &update.marks) {
                self.put(key, &update.marks, held_until, now);
            } else {
                had_room = false;
                self.drop_one(held_until, now);
            }
        }
        had_room
    }

    /// What was kept of a subject can't be delivered.
    pub(super) fn is_missing(&mut self, update: &Update) {
        let now = Instant::now();
        self.drop_one(update.hold.map(|hold| now + hold), now);
    }

    fn drop_one(&mut self, held_until: Option<Instant>, now: Instant) {
        self.dropped += 1;
        self.doubt = self.doubt.max(held_until).max(Some(now));
    }

    /// Keeps what an earlier process has kept, whatever room there is: it may have been promised.
    pub(super) fn restore(&mut self, keys: &[SubjectKey], update: &Update, since: Instant) {
        let held_until = update.hold.map(|hold| Instant::now() + hold);
        keys.iter().for_each(|key| self.put(key, &update.marks, held_until, since));
    }

    fn has_room(&self, key: &SubjectKey, marks: &Marks) -> bool {
        let more = match self.kept.get(key) {
            Some(kept) if kept.marks.covers(marks) => 0,
            Some(kept) => {
                let mut joined = kept.marks.clone();
                joined.join(marks);
                Entry::size_of(&joined).saturating_sub(Entry::size_of(&kept.marks))
            }
            None if self.kept.len() >= CAPACITY => return false,
            None => Entry::size_of(marks),
        };
        more == 0 || self.bytes + more <= self.max_bytes
    }

    fn put(&mut self, key: &SubjectKey, marks: &Marks, held_until: Option<Instant>, since: Instant) {
        let Self { kept, line, next_place, bytes, .. } = self;
        let entry = kept.entry(*key).or_insert_with(|| {
            let place = *next_place;
            line.insert(place, *key);
            *next_place += 1;
            *bytes += Entry::size_of(&Marks::none());
            Kept { marks: Marks::none(), held_until: None, since, place }
        });
        *bytes -= Entry::size_of(&entry.marks);
        entry.marks.join(marks);
        *bytes += Entry::size_of(&entry.marks);
        entry.held_until = entry.held_until.max(held_until);
    }

    /// Those who have waited longest.
    pub(super) fn first(&self, count: usize) -> Vec<(SubjectKey, Update)> {
        let first = self.line.values().take(count).filter_map(|key| Some((*key, self.kept.get(key)?.update())));
        first.collect()
    }

    /// What has come since is delivered in its turn.
    pub(super) fn delivered(&mut self, batch: &[(SubjectKey, Update)]) {
        for (key, update) in batch {
            let Some(kept) = self.kept.get_mut(key) else { continue };
            self.line.remove(&kept.place);
            if update.marks.covers(&kept.marks) && !kept.outlasts(update) {
                self.bytes -= Entry::size_of(&kept.marks);
                self.kept.remove(key);
            } else {
                kept.place = self.next_place;
                self.line.insert(self.next_place, *key);
                self.next_place += 1;
            }
        }
    }

    /// The client knows that it is lost, and need not be told again when it is delivered.
    pub(super) fn forget(&mut self, keys: &[SubjectKey], told: &Marks) {
        for key in keys {
            if let Some(kept) = self.kept.get_mut(key) {
                self.bytes -= Entry::size_of(&kept.marks);
                kept.marks = std::mem::take(&mut kept.marks).without(told);
                self.bytes += Entry::size_of(&kept.marks);
            }
        }
    }

    /// Some of those from `place` on, as they are written down, and the place to go on from. Whoever moves meanwhile
    /// moves to the end.
    pub(super) fn written_down(&self, place: u64, clock: &Clock) -> (Vec<Undelivered>, Option<u64>) {
        let mut next = None;
        let mut written = Vec::new();
        for (place, key) in self.line.range(place..).take(CHUNK) {
            next = Some(place + 1);
            written.extend(self.kept.get(key).map(|kept| kept.written_down(*key, clock)));
        }
        (written, next)
    }
}

impl Kept {
    fn update(&self) -> Update {
        let hold = self.held_until.map(|until| until.saturating_duration_since(Instant::now()));
        Update { marks: self.marks.clone(), hold: hold.filter(|hold| !hold.is_zero()) }
    }

    /// Whether it is held for longer than was delivered.
    fn outlasts(&self, delivered: &Update) -> bool {
        self.held_until.is_some_and(|until| until > Instant::now() + delivered.hold.unwrap_or_default())
    }

    fn written_down(&self, key: SubjectKey, clock: &Clock) -> Undelivered {
        let Update { marks, hold } = self.update();
        let since = clock.now().saturating_sub(self.since.elapsed());
        Undelivered { keys: vec![key], marks, since, hold: hold.map(|length| held(length, clock)) }
    }
}

pub(super) fn held(length: Duration, clock: &Clock) -> Hold {
    Hold { until: clock.now() + length, length }
}

/// What was written down, and when it was kept. However wrong a clock was, a hold is not longer than when it was written,
/// and not over before its time has passed on that clock.
pub(super) fn read_back(entry: &Undelivered, clock: &Clock) -> (Update, Instant) {
    let hold = entry.hold.map(|hold| hold.until.saturating_sub(clock.now()).min(hold.length));
    let now = Instant::now();
    let since = now.checked_sub(clock.now().saturating_sub(entry.since)).unwrap_or(now);
    (Update { marks: entry.marks.clone(), hold: hold.filter(|hold| !hold.is_zero()) }, since)
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Position};

    use super::*;

    fn key(number: u64) -> SubjectKey {
        SubjectKey::from_bytes(u128::from(number).to_le_bytes())
    }

    fn at(offset: u64) -> Update {
        let position = Position::new(ClusterId::new(1), Epoch::new(1), offset);
        Update { marks: Marks::at(position), hold: None }
    }

    fn keep(backlog: &mut Backlog, number: u64, offset: u64) -> bool {
        backlog.keep(&[key(number)], &at(offset))
    }

    fn check(backlog: &Backlog) {
        assert_eq!(backlog.line.len(), backlog.kept.len());
        assert!(backlog.line.iter().all(|(place, key)| backlog.kept[key].place == *place));
        let bytes: u64 = backlog.kept.values().map(|kept| Entry::size_of(&kept.marks)).sum();
        assert_eq!(backlog.bytes, bytes);
    }

    #[test]
    fn everybody_has_one_place_in_line() {
        let mut backlog = Backlog::new(u64::MAX);
        for number in (0..10).chain(5..10) {
            assert!(keep(&mut backlog, number, number));
        }
        // Delivered, while one of them has got something new.
        let batch: Vec<_> = (0..4).map(|number| (key(number), at(number))).collect();
        keep(&mut backlog, 2, 99);
        backlog.forget(&[key(8)], &at(8).marks);
        backlog.delivered(&batch);
        check(&backlog);
        let left: Vec<_> = backlog.line.values().copied().collect();
        assert_eq!(left, [4, 5, 6, 7, 8, 9, 2].map(key), "what has come since is delivered in its turn");
    }

    #[test]
    fn what_was_kept_stays_when_there_is_too_much() {
        let size = Entry::size_of(&at(1).marks);
        for (max_bytes, room) in [(u64::MAX, CAPACITY as u64), (size * 5 + 1, 5)] {
            let mut backlog = Backlog::new(max_bytes);
            for number in 0..room {
                assert!(keep(&mut backlog, number, number));
            }
            assert_eq!((backlog.dropped, backlog.doubt), (0, None));
            for number in 0..room + 10 {
                assert_eq!(keep(&mut backlog, number, number + 1), number < room, "who has a place has it still");
            }
            check(&backlog);
            assert_eq!((backlog.len() as u64, backlog.dropped), (room, 10));
            assert!(backlog.doubt.is_some());
            // Of an earlier process: nobody is turned away.
            (room..room + 5).for_each(|number| backlog.restore(&[key(number)], &at(number), Instant::now()));
            check(&backlog);
            assert_eq!((backlog.len() as u64, backlog.dropped), (room + 5, 10));
            assert!(keep(&mut backlog, room, room + 9) && !keep(&mut backlog, room + 5, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_them_are_written_down_and_read_back() {
        let clock = Clock::start();
        let mut backlog = Backlog::new(u64::MAX);
        let many = 3 * CHUNK as u64 + 1;
        for number in 0..many {
            let hold = Some(Duration::from_secs(number)).filter(|hold| !hold.is_zero());
            backlog.keep(&[key(number)], &Update { hold, ..at(number) });
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut written = Vec::new();
        let mut place = Some(0);
        while let Some(from) = place {
            let (some, next) = backlog.written_down(from, &clock);
            written.extend(some);
            place = next;
        }
        assert_eq!(written.len() as u64, many);
        tokio::time::advance(Duration::from_secs(5)).await;
        for (number, entry) in (0..).zip(&written) {
            let (update, since) = read_back(entry, &clock);
            let hold = Some(Duration::from_secs(u64::saturating_sub(number, 15))).filter(|hold| !hold.is_zero());
            assert_eq!((entry.keys[0], update), (key(number), Update { hold, ..at(number) }));
            assert_eq!(since.elapsed(), Duration::from_secs(15));
        }
        // By a clock that was set back a hold is as long as it was, and not longer.
        let (update, _) = read_back(
            &Undelivered {
                hold: Some(Hold { until: clock.now() * 2, length: Duration::from_secs(3) }),
                ..written[0].clone()
            },
            &clock,
        );
        assert_eq!(update.hold, Some(Duration::from_secs(3)));
    }
}
