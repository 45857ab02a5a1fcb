//! What is found of a request in a trace, see the crate's documentation. Where no subscriber wants spans, none are made.

use ryw_core::{Epoch, Marks, Reason};
use tracing::{Span, field::Empty, level_filters::LevelFilter};

use crate::{
    observe::{Checked, Recorded, Routed},
    policy::{Intent, Terms},
};

pub(crate) fn request() -> Span {
    // Not even a disabled one, which knows its name and is looked at again and again on its way.
    if LevelFilter::current() < LevelFilter::INFO {
        return Span::none();
    }
    tracing::info_span!(
        target: "tower_ryw",
        "ryw",
        ryw.intent = Empty,
        ryw.level = Empty,
        ryw.required = Empty,
        ryw.route = Empty,
        ryw.node = Empty,
        ryw.reason = Empty,
        ryw.epoch = Empty,
        ryw.waited_ms = Empty,
        ryw.achieved = Empty,
        ryw.recorded = Empty,
        ryw.outcome = Empty,
        ryw.refused = Empty,
    )
}

/// A part of the current request's span.
pub(crate) fn prepare() -> Span {
    tracing::info_span!(target: "tower_ryw", "ryw.prepare")
}

/// As [`prepare`].
pub(crate) fn record() -> Span {
    tracing::info_span!(target: "tower_ryw", "ryw.record")
}

/// A read that is made again on the primary, linked to the request. It is no part of it: a request does not last until all has
/// been looked up that there is to know of it.
pub(crate) fn check(of: &Span) -> Span {
    let span = tracing::info_span!(
        target: "tower_ryw",
        parent: None,
        "ryw.check",
        ryw.node = Empty,
        ryw.found = Empty,
    );
    if !span.is_disabled() {
        span.follows_from(of);
    }
    span
}

pub(crate) fn checked(span: &Span, found: Checked, node: Option<&str>) {
    span.record("ryw.found", found.word());
    if let Some(node) = node {
        span.record("ryw.node", node);
    }
}

pub(crate) fn identified(span: &Span, terms: impl FnOnce() -> Terms) {
    if span.is_disabled() {
        return;
    }
    let Terms { intent, level, .. } = terms();
    let intent = match intent {
        Intent::Read => "read",
        Intent::Write => "write",
    };
    span.record("ryw.intent", intent).record("ryw.level", level.word());
}

pub(crate) fn routed(span: &Span, event: &Routed<'_>, required: &Marks, epoch: impl FnOnce() -> Option<Epoch>) {
    if span.is_disabled() {
        return;
    }
    span.record("ryw.required", tracing::field::display(required))
        .record("ryw.route", event.route())
        .record("ryw.reason", event.reason.word())
        .record("ryw.waited_ms", u64::try_from(event.waited.as_millis()).unwrap_or(u64::MAX))
        .record("ryw.achieved", event.achieved);
    if let Some(node) = event.node {
        span.record("ryw.node", node);
    }
    if let Some(epoch) = epoch() {
        span.record("ryw.epoch", epoch.get());
    }
}

pub(crate) fn recorded(span: &Span, event: Recorded, marks: &Marks) {
    if !span.is_disabled() {
        span.record("ryw.outcome", event.word()).record("ryw.recorded", tracing::field::display(marks));
    }
}

pub(crate) fn refused(span: &Span, reason: Option<Reason>) {
    span.record("ryw.refused", true);
    if let Some(reason) = reason {
        span.record("ryw.reason", reason.word());
    }
}
