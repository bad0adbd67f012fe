//! Limits over all requests.

use std::fmt;
use std::sync::atomic::Ordering;

use crate::core::limits::Limits;
use crate::core::vitals::Vitals;

use super::page::Page;
use super::table;

pub(super) fn write(page: &mut Page<'_>, vitals: &Vitals, limits: &Limits) -> fmt::Result {
    page.single(table::REPLAY_BYTES, vitals.replay.bytes.load(Ordering::Relaxed) as u64)?;
    page.single(table::REPLAY_BYTES_LIMIT, limits.replay_bytes_total_max as u64)?;
    page.single(table::REPLAY_WITHOUT, vitals.replay.went_without.read())?;
    page.single(table::QUEUED_TOTAL, vitals.queued.load(Ordering::Relaxed) as u64)?;
    page.single(table::QUEUED_TOTAL_LIMIT, limits.queued_max as u64)?;
    page.single(table::CROWDED_OUT, vitals.crowded_out.read())
}
