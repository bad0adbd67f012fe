//! The keys that tokens are checked against, and whom tokens are about.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::core::debts;
use crate::core::limits::Limits;
use crate::core::snapshot::{Access, Endpoint};
use crate::core::vitals::Vitals;

use super::page::{Page, whole};
use super::table;

pub(super) fn write(page: &mut Page<'_>, vitals: &Vitals) -> fmt::Result {
    let tokens = &vitals.tokens;
    let in_use = tokens.in_use(vitals.micros(Instant::now()));
    let stale_max = tokens.report.lock().stale_max;
    page.metric(table::TOKEN_KEYS, |series| series.level(&[], whole(in_use.map_or(0, |(usable, _)| usable as u64))))?;
    page.metric(table::TOKEN_KEYS_AGE, |series| {
        in_use.map_or(Ok(()), |(_, age)| series.level(&[], age.as_secs_f64()))
    })?;
    page.metric(table::TOKEN_KEYS_AGE_LIMIT, |series| {
        stale_max.map_or(Ok(()), |limit| series.level(&[], limit.as_secs_f64()))
    })?;
    page.single(table::TOKEN_KEYS_RENEWALS, tokens.renewals.read())?;
    page.single(table::TOKEN_KEYS_FAILURES, tokens.failures.read())?;
    page.metric(table::TOKEN_KEYS_FETCHES, |series| {
        series.count(&["changed"], tokens.fetches.changed.read())?;
        series.count(&["unchanged"], tokens.fetches.unchanged.read())?;
        series.count(&["failed"], tokens.fetches.failed.read())
    })?;
    page.single(table::TOKEN_KEYS_EARLY, tokens.fetches.early.read())
}

/// What is remembered of subjects, of endpoints that limit them.
pub(super) fn write_subjects(
    page: &mut Page<'_>,
    endpoints: &[Arc<Endpoint>],
    vitals: &Vitals,
    limits: &Limits,
) -> fmt::Result {
    let is_meant =
        |endpoint: &&Arc<Endpoint>| endpoint.limiter.asks_for_caller() && matches!(endpoint.access, Access::Token);
    let meant: Vec<_> = endpoints.iter().filter(is_meant).collect();
    let now = vitals.nanos(Instant::now());
    page.metric(table::TOKEN_SUBJECTS, |series| {
        meant.iter().try_for_each(|endpoint| {
            let count = endpoint.limiter.meters.subjects.len(now) as u64;
            series.level(&[endpoint.form.word(), endpoint.name.as_str()], whole(count))
        })
    })?;
    page.single(table::TOKEN_SUBJECTS_LIMIT, debts::places(limits.token_subjects_max) as u64)?;
    page.metric(table::TOKEN_SUBJECTS_CROWDED, |series| {
        meant.iter().try_for_each(|endpoint| {
            let count = endpoint.limiter.meters.subjects.crowded.read();
            series.count(&[endpoint.form.word(), endpoint.name.as_str()], count)
        })
    })
}
