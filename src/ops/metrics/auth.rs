//! Failed attempts of clients to prove who they are.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::core::limits::Limits;
use crate::core::vitals::Vitals;

use super::page::Page;
use super::table;

pub(super) fn write(page: &mut Page<'_>, vitals: &Vitals, limits: &Limits) -> fmt::Result {
    let (auth, rules) = (&vitals.auth, &limits.failures);
    let addresses = auth.failures.len(vitals.micros(Instant::now()));
    page.single(table::AUTH_LATE, auth.late.read())?;
    page.single(table::AUTH_HELD, auth.held.load(Ordering::Relaxed) as u64)?;
    page.single(table::AUTH_HELD_LIMIT, rules.held_max as u64)?;
    page.single(table::AUTH_ADDRESSES, addresses as u64)?;
    page.single(table::AUTH_ADDRESSES_LIMIT, rules.places() as u64)
}
