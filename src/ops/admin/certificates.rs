//! `/debug/certificates`: what clients are shown, and what is wrong with what they are not shown.

use std::time::SystemTime;

use serde::Serialize;

use crate::core::certificates::{CertificateState, InUse};
use crate::core::vitals::Vitals;
use crate::ops::access_log::number::write_time;

/// One place of the configuration.
#[derive(Debug, Serialize)]
pub(super) struct View {
    source: String,
    in_use: Option<InUseView>,
    /// Why what is there now is not in use.
    problem: Option<String>,
    renewals: u64,
}

#[derive(Debug, Serialize)]
struct InUseView {
    subject: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    days_left: i64,
    sha256: String,
    since: String,
}

pub(super) fn of(vitals: &Vitals) -> Vec<View> {
    let now = SystemTime::now();
    vitals.certificates.lock().iter().map(|state| View::of(state, now)).collect()
}

impl View {
    fn of(state: &CertificateState, now: SystemTime) -> Self {
        let CertificateState { source, in_use, problem, renewals } = state.clone();
        Self { source, in_use: in_use.map(|in_use| InUseView::of(in_use, now)), problem, renewals }
    }
}

impl InUseView {
    fn of(in_use: InUse, now: SystemTime) -> Self {
        let days_left = in_use.days_left(now).floor() as i64;
        let InUse { certificate, fingerprint, since } = in_use;
        Self {
            subject: certificate.subject,
            names: certificate.dns_names,
            not_before: text(certificate.not_before),
            not_after: text(certificate.not_after),
            days_left,
            sha256: fingerprint,
            since: text(since),
        }
    }
}

fn text(time: SystemTime) -> String {
    let mut bytes = Vec::new();
    write_time(&mut bytes, time);
    String::from_utf8(bytes).unwrap_or_default()
}
