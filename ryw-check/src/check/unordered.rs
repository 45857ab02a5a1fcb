//! Registers without a version order: only a write that lies causally between another and a read of that other one.

use super::{
    owed::{KeyEvents, Past, Track},
    promises,
};
use crate::{
    history::{History, NONE},
    parse::{Level, Outcome},
    report::Kind,
};

/// How many reads of each session are looked at, from the newest in the past backwards; so time stays linear, and a
/// write that was only seen longer ago is not found.
const LOOK_BACK: usize = 64;

/// Finds a write, or a read of it, in the past of a read that shows an older value (`NONE`: the initial one).
///
/// `clock_of` is the causal clock of a write when it was invoked, `index_of` its place among its session's returns.
pub(crate) fn overwritten<'c>(
    h: &History,
    events: &KeyEvents,
    past: &Past<'_>,
    level: Level,
    shown: u32,
    clock_of: impl Fn(u32) -> Option<&'c [u32]>,
    index_of: impl Fn(u32) -> u32,
) -> Option<(Kind, u32)> {
    let until = |clock: &[u32], session: u32| clock.get(session as usize).copied().unwrap_or(0);
    let after_shown = |value: u32| {
        if shown == NONE || value == shown {
            return value != shown;
        }
        let Some(clock) = clock_of(h.values[value as usize].writer) else { return false };
        let writer = h.values[shown as usize].writer;
        let Some(op) = h.ops.get(writer as usize) else { return false };
        let written = op.out == Outcome::Ok && index_of(writer) < until(clock, op.session);
        written || events.tracks.iter().any(|track| read_before(track, shown, until(clock, track.session)))
    };
    let search = |kind: Kind, track: &Track, write: bool, until: u32| {
        if !promises(level, kind) {
            return None;
        }
        let list = if write { &track.writes } else { &track.reads };
        let end = list.partition_point(|event| event.index < until);
        let told = past.told.get(track.session as usize).copied().unwrap_or(0);
        let mut newest = list[..end].iter().rev().take(LOOK_BACK).filter(|event| event.index >= told);
        newest.find(|event| after_shown(event.value)).map(|event| (kind, event.op))
    };
    let own = events.tracks.iter().find(|track| track.session == past.session);
    own.and_then(|track| search(Kind::Ryw, track, true, past.own).or_else(|| search(Kind::Mr, track, false, past.own)))
        .or_else(|| {
            let ways = [(Kind::Mw, past.by_session, true), (Kind::Wfr, past.by_session, false)];
            let causal = [(Kind::Causal, past.causal, true), (Kind::Causal, past.causal, false)];
            ways.into_iter().chain(causal).find_map(|(kind, clock, write)| {
                events.tracks.iter().find_map(|track| search(kind, track, write, until(clock, track.session)))
            })
        })
}

fn read_before(track: &Track, value: u32, until: u32) -> bool {
    let end = track.reads.partition_point(|event| event.index < until);
    track.reads[..end].iter().rev().take(LOOK_BACK).any(|event| event.value == value)
}
