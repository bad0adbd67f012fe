//! The keys that tokens are checked against.

use std::fmt;
use std::time::Instant;

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
