//! What each session has written and seen of a key, and the newest of it that lies in somebody's past.

use super::promises;
use crate::{
    history::{History, NONE},
    parse::Level,
    report::Kind,
};

/// A session's operation that wrote a version or showed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// Its place among the returns of its session.
    pub(crate) index: u32,
    pub(crate) version: u32,
    /// The value written or shown.
    pub(crate) value: u32,
    pub(crate) op: u32,
    /// The place of the newest version up to here.
    best: u32,
}

/// One session's events of one key, in the order of returns.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) session: u32,
    pub(crate) writes: Vec<Event>,
    pub(crate) reads: Vec<Event>,
}

#[derive(Debug, Default)]
pub(crate) struct KeyEvents {
    /// The newest version of all events.
    top: u32,
    pub(crate) tracks: Vec<Track>,
}

/// Somebody's past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Past<'a> {
    pub(crate) session: u32,
    /// How many operations of this session had returned.
    pub(crate) own: u32,
    pub(crate) by_session: &'a [u32],
    pub(crate) causal: &'a [u32],
    /// Registers: what was in the past of a reset is owed no more, unless it is this version, which survived.
    pub(crate) told: &'a [u32],
    pub(crate) survivor: u32,
}

impl KeyEvents {
    pub(crate) fn push(&mut self, session: u32, write: bool, index: u32, version: u32, value: u32, op: u32) {
        self.top = self.top.max(version);
        let at = self.tracks.iter().position(|track| track.session == session).unwrap_or_else(|| {
            self.tracks.push(Track { session, writes: Vec::new(), reads: Vec::new() });
            self.tracks.len() - 1
        });
        let track = &mut self.tracks[at];
        let events = if write { &mut track.writes } else { &mut track.reads };
        let here = events.len() as u32;
        let best = events
            .last()
            .map_or(here, |last| if events[last.best as usize].version >= version { last.best } else { here });
        events.push(Event { index, version, value, op, best });
    }

    /// Something newer than `shown` that a read with this past was promised to show, labelled by the shortest way to it.
    pub(crate) fn missing(&self, past: &Past<'_>, level: Level, shown: u32) -> Option<(Kind, Event)> {
        // Most reads show the newest.
        if self.top <= shown {
            return None;
        }
        self.first(past, level, |events, told, until| {
            newest(events, told, until, past.survivor).filter(|event| event.version > shown)
        })
    }

    /// The same for a list on a branch, where no single version says what is shown: looks at every event.
    pub(crate) fn missing_from(
        &self,
        past: &Past<'_>,
        level: Level,
        lacks: impl Fn(&Event) -> bool,
    ) -> Option<(Kind, Event)> {
        self.first(past, level, |events, told, until| {
            let end = events.partition_point(|event| event.index < until);
            let from = events.partition_point(|event| event.index < told).min(end);
            events[from..end].iter().rev().find(|event| lacks(event)).copied()
        })
    }

    /// An operation that returned before a time, whoever did it, with something that is lacking.
    pub(crate) fn long_ago(
        &self,
        h: &History,
        before: u64,
        writes_only: bool,
        lacks: impl Fn(&Event) -> bool,
    ) -> Option<u32> {
        let until = |events: &[Event]| events.partition_point(|event| h.ops[event.op as usize].ret < before);
        let search =
            |events: &[Event]| events[..until(events)].iter().rev().find(|event| lacks(event)).map(|event| event.op);
        self.tracks
            .iter()
            .find_map(|track| search(&track.writes).or_else(|| if writes_only { None } else { search(&track.reads) }))
    }

    fn first(
        &self,
        past: &Past<'_>,
        level: Level,
        select: impl Fn(&[Event], u32, u32) -> Option<Event>,
    ) -> Option<(Kind, Event)> {
        let newer = |kind: Kind, events: &[Event], session: u32, until: u32| {
            let told = past.told.get(session as usize).copied().unwrap_or(0);
            if promises(level, kind) { select(events, told, until).map(|event| (kind, event)) } else { None }
        };
        let own = self.tracks.iter().find(|track| track.session == past.session);
        if let Some(Track { session, writes, reads }) = own {
            let found =
                newer(Kind::Ryw, writes, *session, past.own).or_else(|| newer(Kind::Mr, reads, *session, past.own));
            if found.is_some() {
                return found;
            }
        }
        self.elsewhere(past, level, newer)
    }

    /// Something that a write with this past has to come after, and has not, being `version`.
    pub(crate) fn overtaken(&self, past: &Past<'_>, level: Level, version: u32) -> Option<(Kind, Event)> {
        self.elsewhere(past, level, |kind: Kind, events: &[Event], session: u32, until: u32| {
            let told = past.told.get(session as usize).copied().unwrap_or(0);
            let event = newest(events, told, until, past.survivor)?;
            (event.version > version && promises(level, kind)).then_some((kind, event))
        })
    }

    fn elsewhere(
        &self,
        past: &Past<'_>,
        level: Level,
        newer: impl Fn(Kind, &[Event], u32, u32) -> Option<(Kind, Event)>,
    ) -> Option<(Kind, Event)> {
        if !promises(level, Kind::Mw) {
            return None;
        }
        let until = |clock: &[u32], session: u32| clock.get(session as usize).copied().unwrap_or(0);
        let each = |kind: Kind, clock: &[u32], write: bool| {
            self.tracks.iter().find_map(|track| {
                let events = if write { &track.writes } else { &track.reads };
                newer(kind, events, track.session, until(clock, track.session))
            })
        };
        each(Kind::Mw, past.by_session, true)
            .or_else(|| each(Kind::Wfr, past.by_session, false))
            .or_else(|| each(Kind::Causal, past.causal, true))
            .or_else(|| each(Kind::Causal, past.causal, false))
    }
}

/// The newest version among the events from `told` to `until`.
fn newest(events: &[Event], told: u32, until: u32, survivor: u32) -> Option<Event> {
    let end = events.partition_point(|event| event.index < until);
    let best = events[events.get(end.checked_sub(1)?)?.best as usize];
    if best.index >= told {
        return Some(best);
    }
    // Told of more than this past contains: all of it is excused.
    let from = events.partition_point(|event| event.index < told).min(end);
    let kept = events[..from].iter().rev().find(|event| event.version == survivor);
    events[from..end].iter().chain(kept).max_by_key(|event| event.version).copied()
}

impl Default for Past<'_> {
    fn default() -> Self {
        Self { session: NONE, own: 0, by_session: &[], causal: &[], told: &[], survivor: NONE }
    }
}
