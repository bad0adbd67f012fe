//! The key set in use, shared by all workers, and how old it is.
//!
//! Owner: `control::tokens` writes, `data::auth` and the metrics read.
//! Holds: without keys, or with keys that could not be read again for too long, no token is accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::{Fault, KeySet, Rules, verify};
use crate::core::count::Counter;

/// See the head of the file. Times are microseconds on the router's clock.
#[derive(Debug, Default)]
pub struct TokenState {
    keys: ArcSwapOption<KeySet>,
    confirmed_us: AtomicU64,
    /// Times that another key set was taken up, the first one not counted.
    pub renewals: Counter,
    /// Times that the source was looked at and had no usable key set.
    pub failures: Counter,
}

impl TokenState {
    /// Uses these keys from now on.
    pub fn take(&self, keys: KeySet, now_us: u64) {
        self.confirm(now_us);
        if self.keys.swap(Some(Arc::new(keys))).is_some() {
            self.renewals.bump();
        }
    }

    /// The source was read, and still has the keys in use.
    pub fn confirm(&self, now_us: u64) {
        self.confirmed_us.store(now_us, Ordering::Relaxed);
    }

    /// How many keys are in use, and how long ago they were last read; `None` where there never were any.
    pub fn in_use(&self, now_us: u64) -> Option<(usize, Duration)> {
        let usable = self.keys.load().as_ref()?.usable();
        Some((usable, self.age(now_us)))
    }

    fn age(&self, now_us: u64) -> Duration {
        Duration::from_micros(now_us.saturating_sub(self.confirmed_us.load(Ordering::Relaxed)))
    }

    /// Checks a token for the endpoint, now on both clocks.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn verify(
        &self,
        token: &[u8],
        rules: &Rules,
        endpoint: &str,
        (now, now_us): (SystemTime, u64),
    ) -> Result<(), Fault> {
        if rules.issuer.is_empty() || rules.audiences.is_empty() {
            return Err(Fault::NotConfigured);
        }
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(Fault::NoKeys)?;
        if self.age(now_us) > rules.stale_max {
            return Err(Fault::StaleKeys);
        }
        verify(token, keys, rules, endpoint, now)
    }
}
