//! Where everything that is read arrives: it decides what is in use, and tells operators.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::core::certificates::InUse;
use crate::core::vitals::Vitals;
use crate::core::x509::Certificate;

use super::TARGET;
use super::pair::Pair;
use super::shown::Shown;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Desk {
    /// By place, in the order of the configuration.
    pairs: Mutex<Vec<Option<Pair>>>,
    shown: Arc<Shown>,
    vitals: Arc<Vitals>,
}

impl Desk {
    /// For so many places with certificates of the router; nothing is shown yet.
    pub(super) fn new(places: usize, vitals: Arc<Vitals>) -> Self {
        Self { pairs: Mutex::new(vec![None; places]), shown: Arc::default(), vitals }
    }

    /// What clients are shown.
    pub(super) fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }

    /// Shows a certificate to clients from now on.
    pub(super) fn take(&self, place: usize, pair: Pair) {
        let (certificate, fingerprint) = (pair.certificate.clone(), pair.fingerprint.clone());
        let mut pairs = self.pairs.lock();
        let Some(slot) = pairs.get_mut(place) else { return };
        *slot = Some(pair);
        self.shown.show(pairs.iter().flatten().map(|pair| (&pair.certificate, pair.key.clone())));
        drop(pairs);
        self.settle(place, &certificate, &fingerprint);
    }

    /// Whether there is anything to show.
    pub(super) fn has_any(&self) -> bool {
        self.pairs.lock().iter().any(Option::is_some)
    }

    /// Says that nothing is wrong with a place any more.
    pub(super) fn solve(&self, place: usize) {
        let solved = self.vitals.certificates.lock().get_mut(place).and_then(|state| {
            let problem = state.problem.take()?;
            Some((state.source.clone(), problem))
        });
        if let Some((source, problem)) = solved {
            tracing::info!(target: TARGET, source, "solved: {problem}");
        }
    }

    /// Says that a certificate is in use.
    pub(super) fn settle(&self, place: usize, certificate: &Certificate, fingerprint: &str) {
        let mut states = self.vitals.certificates.lock();
        let Some(state) = states.get_mut(place) else { return };
        let source = state.source.clone();
        let since = SystemTime::now();
        let in_use = InUse { certificate: certificate.clone(), fingerprint: fingerprint.to_owned(), since };
        let days_left = in_use.days_left(since).floor();
        let is_new = state.in_use.as_ref().is_none_or(|old| old.fingerprint != fingerprint);
        if is_new {
            state.renewals += u64::from(state.in_use.is_some());
            state.in_use = Some(in_use);
        }
        drop(states);
        self.solve(place);
        if is_new {
            let (subject, names) = (&certificate.subject, certificate.dns_names.join(" "));
            tracing::info!(target: TARGET, source, subject, names, fingerprint, days_left, "certificate in use");
        }
        if is_new && days_left < 0.0 {
            tracing::warn!(target: TARGET, source, "the certificate has expired and will be refused; renew it");
        }
    }

    /// Says that what is at a place is of no use. Each problem is told once.
    pub(super) fn complain(&self, place: usize, problem: String) {
        let mut states = self.vitals.certificates.lock();
        let Some(state) = states.get_mut(place).filter(|state| state.problem.as_ref() != Some(&problem)) else {
            return;
        };
        let source = state.source.clone();
        state.problem = Some(problem.clone());
        drop(states);
        tracing::warn!(target: TARGET, source, "{problem}; what was in use stays in use");
    }
}
