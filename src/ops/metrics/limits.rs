//! Limits over all requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::limits::Limits;
use crate::core::memory::Memory;
use crate::core::shares::{Limit, Shares};
use crate::core::snapshot::Endpoint;
use crate::core::vitals::Vitals;

use super::page::{Page, whole};
use super::table;

pub(super) fn write(page: &mut Page<'_>, vitals: &Vitals, limits: &Limits) -> fmt::Result {
    page.single(table::REPLAY_BYTES, vitals.replay.bytes.load(Ordering::Relaxed) as u64)?;
    page.single(table::REPLAY_BYTES_LIMIT, limits.replay_bytes_total_max as u64)?;
    page.single(table::REPLAY_WITHOUT, vitals.replay.went_without.read())?;
    page.single(table::QUEUED_TOTAL, vitals.queued.load(Ordering::Relaxed) as u64)?;
    page.single(table::QUEUED_TOTAL_LIMIT, limits.queued_max as u64)?;
    page.single(table::CROWDED_OUT, vitals.crowded_out.read())?;
    page.single(table::REQUESTS_UNDER_WAY, vitals.requests.load(Ordering::Relaxed) as u64)?;
    page.single(table::REQUESTS_LIMIT, limits.requests_max as u64)
}

/// What endpoints have of what all have in common. Limits that nobody ran into have no series.
pub(super) fn write_shares(page: &mut Page<'_>, endpoints: &[Arc<Endpoint>]) -> fmt::Result {
    let level = |page: &mut Page<'_>, metric, of: fn(&Shares) -> &AtomicUsize| {
        page.metric(metric, |series| {
            endpoints.iter().try_for_each(|endpoint| {
                let value = of(&endpoint.shares).load(Ordering::Relaxed) as u64;
                series.level(&[endpoint.form.word(), endpoint.name.as_str()], whole(value))
            })
        })
    };
    level(page, table::SHARES_TAKEN, |shares| &shares.requests)?;
    level(page, table::SHARES_REPLAY, |shares| &shares.replay)?;
    page.metric(table::LIMITED, |series| {
        for endpoint in endpoints {
            for limit in Limit::ALL {
                let count = endpoint.shares.refused(limit);
                if count > 0 {
                    series.count(&[endpoint.form.word(), endpoint.name.as_str(), limit.label()], count)?;
                }
            }
        }
        Ok(())
    })
}

/// The memory of the process.
pub(super) fn write_memory(page: &mut Page<'_>, memory: &Memory) -> fmt::Result {
    page.single(table::MEMORY_RESIDENT, memory.resident())?;
    page.single(table::MEMORY_LIMIT, memory.limit())?;
    page.single(table::MEMORY_SHORT, u64::from(memory.is_short()))?;
    page.single(table::MEMORY_REQUESTS, memory.refused_requests.read())?;
    page.single(table::MEMORY_CONNECTIONS, memory.refused_connections.read())
}
