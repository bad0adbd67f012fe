//! TLS of clients, handshakes and certificates, and handshakes with replicas.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::core::limits::Limits;
use crate::core::vitals::Vitals;

use super::page::{Page, whole};
use super::table;

pub(super) fn write(page: &mut Page<'_>, vitals: &Vitals, limits: &Limits) -> fmt::Result {
    let handshakes = &vitals.handshakes;
    page.metric(table::TLS_HANDSHAKES, |series| {
        series.count(&["full"], handshakes.full.read())?;
        series.count(&["resumed"], handshakes.resumed.read())?;
        series.count(&["failed"], handshakes.failed.read())?;
        series.count(&["timed_out"], handshakes.timed_out.read())?;
        series.count(&["crowded_out"], handshakes.crowded_out.read())?;
        series.count(&["crowded_address"], handshakes.crowded_address.read())
    })?;
    page.single(table::TLS_HANDSHAKES_OPEN, handshakes.open.load(Ordering::Relaxed) as u64)?;
    page.single(table::TLS_HANDSHAKES_LIMIT, limits.tls_handshakes_max as u64)?;
    let replicas = &vitals.replica_handshakes;
    page.metric(table::UPSTREAM_HANDSHAKES, |series| {
        series.count(&["full"], replicas.full.read())?;
        series.count(&["resumed"], replicas.resumed.read())?;
        series.count(&["failed"], replicas.failed.read())?;
        series.count(&["given_up"], replicas.given_up.read())
    })?;
    let certificates = vitals.certificates.lock().clone();
    page.metric(table::CERTIFICATE_DAYS, |series| {
        let now = SystemTime::now();
        let in_use = certificates.iter().filter_map(|state| Some((&state.source, state.in_use.as_ref()?)));
        in_use.into_iter().try_for_each(|(source, in_use)| series.level(&[source], in_use.days_left(now)))
    })?;
    page.metric(table::CERTIFICATE_PROBLEMS, |series| {
        let problems = certificates.iter().map(|state| (&state.source, u64::from(state.problem.is_some())));
        problems.into_iter().try_for_each(|(source, problems)| series.level(&[source], whole(problems)))
    })?;
    page.metric(table::CERTIFICATE_RENEWALS, |series| {
        certificates.iter().try_for_each(|state| series.count(&[&state.source], state.renewals))
    })
}
