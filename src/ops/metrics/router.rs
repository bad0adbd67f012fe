//! The router as a whole: connections, discovery, access log, build.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::core::facts::Form;
use crate::core::limits::Limits;
use crate::core::snapshot::Snapshot;
use crate::core::vitals::{Http2End, Vitals};

use super::page::{Page, whole};
use super::table;

/// The kinds of objects that always have a series, so that an alert sees the step from zero.
const KINDS: [&str; 4] = ["EndpointSlice", "File", "Secret", "Service"];

pub(super) fn write(page: &mut Page<'_>, snapshot: &Snapshot, vitals: &Vitals, limits: &Limits) -> fmt::Result {
    page.single(table::MIRRORS, vitals.mirrors.load(Ordering::Relaxed) as u64)?;
    page.single(table::MIRRORS_LIMIT, limits.mirrors_max as u64)?;
    page.metric(table::ENDPOINTS, |series| {
        for form in [Form::Endpoint, Form::Service] {
            let count = snapshot.endpoints().filter(|endpoint| endpoint.form == form).count();
            series.level(&[form.word()], whole(count as u64))?;
        }
        Ok(())
    })?;
    write_connections(page, vitals, limits)?;
    write_discovery(page, vitals)?;
    write_state_file(page, vitals)?;
    page.single(table::LOG_WRITTEN, vitals.access_log.written.read())?;
    let dropped = &vitals.access_log.dropped;
    page.metric(table::LOG_DROPPED, |series| {
        series.count(&["slow"], dropped.slow.read())?;
        series.count(&["failing"], dropped.failing.read())?;
        series.count(&["nowhere"], dropped.nowhere.read())
    })?;
    page.single(table::LOG_ERRORS, vitals.access_log.errors.read())?;
    page.single(table::DRAINING, u64::from(vitals.is_draining()))?;
    page.metric(table::BUILD, |series| series.info(&[env!("CARGO_PKG_VERSION"), env!("SCOREFRONT_COMMIT")]))
}

fn write_connections(page: &mut Page<'_>, vitals: &Vitals, limits: &Limits) -> fmt::Result {
    let connections = &vitals.connections;
    page.single(table::CONNECTIONS, connections.open.load(Ordering::Relaxed) as u64)?;
    page.single(table::CONNECTIONS_LIMIT, limits.connections_max as u64)?;
    page.single(table::ACCEPTED, connections.accepted.read())?;
    page.single(table::REFUSED, connections.refused.read())?;
    page.single(table::CROWDED, connections.crowded.read())?;
    page.single(table::REFUSED_DESCRIPTORS, vitals.descriptors.refused.read())?;
    page.single(table::USED_UP, connections.used_up.read())?;
    page.single(table::RESTING, connections.resting.load(Ordering::Relaxed) as u64)?;
    page.single(table::LINGERING, connections.lingering.load(Ordering::Relaxed) as u64)?;
    page.single(table::LINGERING_CUT, connections.lingering_cut.read())?;
    page.metric(table::SLOW_CLIENTS, |series| {
        series.count(&["body"], connections.slow_bodies.read())?;
        series.count(&["answer"], connections.slow_readers.read())
    })?;
    page.single(table::PROXY_HEADERS_WRONG, connections.proxy_headers_wrong.read())?;
    page.metric(table::HTTP2_ENDED, |series| {
        Http2End::ALL
            .into_iter()
            .try_for_each(|reason| series.count(&[reason.label()], connections.http2_ended.read(reason)))
    })?;
    page.single(table::STREAMS_REFUSED, connections.streams_refused.read())?;
    page.single(table::FLOODED, connections.flooded.read())?;
    page.single(table::ACCEPT_ERRORS, connections.accept_errors.read())?;
    page.single(table::UPSTREAM_OPENED, connections.upstream_opened.read())?;
    page.single(table::UPSTREAM_REUSED, connections.upstream_reused.read())?;
    page.single(table::SPLICE_PIPES, vitals.splice.pipes.load(Ordering::Relaxed) as u64)?;
    page.single(table::SPLICE_BYTES, vitals.splice.bytes.read())?;
    page.single(table::SPLICE_MISSING, vitals.splice.missing.read())?;
    page.single(table::RELAYED, vitals.relayed.read())
}

fn write_discovery(page: &mut Page<'_>, vitals: &Vitals) -> fmt::Result {
    page.metric(table::DISCOVERY_AGE, |series| match discovery_age(vitals, Instant::now()) {
        Some(age) => series.level(&[], age.as_secs_f64()),
        None => Ok(()),
    })?;
    page.single(table::DISCOVERY_RESTORED, u64::from(vitals.discovery.restored.lock().is_some()))?;
    page.single(table::PUBLICATIONS, vitals.discovery.publications.read())?;
    page.single(table::DISCOVERY_ERRORS, vitals.discovery.errors.read())?;
    let invalid = invalid_objects(vitals);
    page.metric(table::INVALID_OBJECTS, |series| {
        invalid.iter().try_for_each(|(kind, &count)| series.level(&[*kind], whole(count)))
    })
}

fn write_state_file(page: &mut Page<'_>, vitals: &Vitals) -> fmt::Result {
    let file = &vitals.state_file;
    let as_of = *file.as_of.lock();
    page.metric(table::STATE_FILE_AGE, |series| {
        as_of.map_or(Ok(()), |as_of| series.level(&[], as_of.age_at(Instant::now()).as_secs_f64()))
    })?;
    page.single(table::STATE_FILE_SIZE, file.bytes.load(Ordering::Relaxed))?;
    page.single(table::STATE_FILE_SAVES, file.saves.read())?;
    page.single(table::STATE_FILE_ERRORS, file.errors.read())
}

/// How long ago every source was last known to be in step, to this router or to the one before it.
pub(in crate::ops) fn discovery_age(vitals: &Vitals, now: Instant) -> Option<Duration> {
    if let Some(as_of) = *vitals.discovery.restored.lock() {
        return Some(as_of.age_at(now));
    }
    match vitals.discovery.in_step_us.load(Ordering::Relaxed) {
        0 => None,
        in_step => Some(Duration::from_micros(vitals.micros(now).saturating_sub(in_step))),
    }
}

/// An object with three problems is one invalid object.
fn invalid_objects(vitals: &Vitals) -> BTreeMap<&'static str, u64> {
    let problems = vitals.discovery.problems.lock();
    let objects: BTreeSet<_> = problems.iter().map(|problem| (problem.kind, &problem.object)).collect();
    let mut counts: BTreeMap<_, _> = KINDS.iter().map(|&kind| (kind, 0)).collect();
    for (kind, _) in objects {
        *counts.entry(kind).or_default() += 1;
    }
    counts
}
