//! The keys that tokens are checked against.

use std::fmt;
use std::time::Instant;

use crate::core::vitals::Vitals;

use super::page::{Page, whole};
use super::table;

pub(super) fn write(page: &mut Page<'_>, vitals: &Vitals) -> fmt::Result {
    let in_use = vitals.tokens.in_use(vitals.micros(Instant::now()));
    page.metric(table::TOKEN_KEYS, |series| series.level(&[], whole(in_use.map_or(0, |(usable, _)| usable as u64))))?;
    page.metric(table::TOKEN_KEYS_AGE, |series| {
        in_use.map_or(Ok(()), |(_, age)| series.level(&[], age.as_secs_f64()))
    })?;
    page.single(table::TOKEN_KEYS_RENEWALS, vitals.tokens.renewals.read())?;
    page.single(table::TOKEN_KEYS_FAILURES, vitals.tokens.failures.read())
}
