//! Where every key set that is read arrives: it decides what is in use, and tells operators.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use parking_lot::Mutex;

use super::TARGET;
use crate::core::token::{KeySet, Report};
use crate::core::vitals::Vitals;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Desk {
    vitals: Arc<Vitals>,
    /// The digest of the text of the keys in use.
    mark: Mutex<Option<Vec<u8>>>,
}

/// What a good key set was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Changed,
    Unchanged,
}

impl Desk {
    /// For a source, by the name that it has in messages, whose keys count so long.
    pub(super) fn new(source: String, stale_max: Duration, vitals: Arc<Vitals>) -> Self {
        *vitals.tokens.report.lock() = Report { source, stale_max: Some(stale_max), problem: None };
        Self { vitals, mark: Mutex::default() }
    }

    pub(super) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Uses the keys of this text from now on.
    ///
    /// # Errors
    /// With why it has none. Nobody is told yet.
    pub(super) fn take(&self, text: &[u8]) -> Result<Taken, String> {
        let mark = Some(digest::digest(&digest::SHA256, text).as_ref().to_vec());
        if *self.mark.lock() == mark {
            self.confirm();
            return Ok(Taken::Unchanged);
        }
        let keys = KeySet::read(text)?;
        let (usable, passed_over) = (keys.usable(), keys.passed_over);
        self.vitals.tokens.take(keys, self.now_us());
        *self.mark.lock() = mark;
        self.solve();
        let source = self.vitals.tokens.report.lock().source.clone();
        tracing::info!(target: TARGET, source, usable, passed_over, "keys for tokens in use");
        Ok(Taken::Changed)
    }

    /// The source still has the keys in use.
    pub(super) fn confirm(&self) {
        self.vitals.tokens.confirm(self.now_us());
        self.solve();
    }

    /// The source has no usable keys. Each problem is logged once, and counted again and again.
    pub(super) fn complain(&self, problem: &str) {
        self.vitals.tokens.failures.bump();
        let mut report = self.vitals.tokens.report.lock();
        if report.problem.as_deref() == Some(problem) {
            return;
        }
        report.problem = Some(problem.to_owned());
        let source = report.source.clone();
        drop(report);
        tracing::warn!(
            target: TARGET,
            source, "{problem}; keys that were in use stay in use for token-stale-max-ms, without any no token is accepted"
        );
    }

    /// Nothing is wrong any more.
    pub(super) fn solve(&self) {
        let mut report = self.vitals.tokens.report.lock();
        let (source, problem) = (report.source.clone(), report.problem.take());
        drop(report);
        if let Some(problem) = problem {
            tracing::info!(target: TARGET, source, "solved: {problem}");
        }
    }

    fn now_us(&self) -> u64 {
        self.vitals.micros(Instant::now())
    }
}

/// A key set with one key: the point that RFC 7515 has in its appendix A.3.
#[cfg(test)]
pub(super) const GOOD: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_keys_again_are_no_renewal_and_a_problem_is_told_until_it_is_solved() {
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        let desk = Desk::new("token-jwks /keys".to_owned(), Duration::from_secs(60), vitals.clone());
        let tokens = &vitals.tokens;
        let problem = || tokens.report.lock().problem.clone();
        assert!(desk.take(b"{").unwrap_err().starts_with("is no key set"));
        assert_eq!(tokens.in_use(0), None);
        assert_eq!(desk.take(GOOD.as_bytes()), Ok(Taken::Changed));
        desk.complain("is away");
        desk.complain("is away");
        assert_eq!((problem().as_deref(), tokens.failures.read()), (Some("is away"), 2));
        assert_eq!((desk.take(GOOD.as_bytes()), problem()), (Ok(Taken::Unchanged), None));
        assert_eq!(desk.take(GOOD.replace("\"kty\"", "\"kid\":\"new\",\"kty\"").as_bytes()), Ok(Taken::Changed));
        assert_eq!(tokens.renewals.read(), 1);
        let keys = tokens.keys().expect("keys are in use");
        assert_eq!(keys.names().collect::<Vec<_>>(), [("ES256", Some("new"))]);
    }
}
