//! The key set in use, shared by all workers, and how old it is.
//!
//! Owner: `control::tokens` writes, `data::auth` and the metrics read.
//! Holds: without keys, or with keys that could not be read again for too long, no token is accepted. A token whose key
//! is not known is refused at once; that it came is remembered, and whoever reads the keys is woken once.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{Fault, KeySet, Rules, Verified, verify};
use crate::core::count::Counter;

/// See the head of the file. Times are microseconds on the router's clock.
#[derive(Debug, Default)]
pub struct TokenState {
    keys: ArcSwapOption<KeySet>,
    confirmed_us: AtomicU64,
    /// Where keys come from, and what is wrong there.
    pub report: Mutex<Report>,
    /// Times that another key set was taken up, the first one not counted.
    pub renewals: Counter,
    /// Times that the source was looked at and had no usable key set.
    pub failures: Counter,
    /// Fetches from a URL.
    pub fetches: FetchCounts,
    wanted: Wanted,
}

/// What operators are told of the source of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The setting and its value; empty where none is set.
    pub source: String,
    /// How long keys count after it could last be read.
    pub stale_max: Option<Duration>,
    /// Why what is there now is not in use; `None` where it is.
    pub problem: Option<String>,
}

/// Fetches that are over, by what they brought, and what they were for.
#[derive(Debug, Default)]
pub struct FetchCounts {
    /// Another key set.
    pub changed: Counter,
    /// The one that was in use.
    pub unchanged: Counter,
    /// None that is of use.
    pub failed: Counter,
    /// Those that came early because of a token with an unknown key.
    pub early: Counter,
}

/// Whether a token with an unknown key came, and who waits for that.
#[derive(Debug, Default)]
struct Wanted {
    is_set: AtomicBool,
    waiting: Mutex<Option<Waker>>,
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

    /// The keys in use.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    fn age(&self, now_us: u64) -> Duration {
        Duration::from_micros(now_us.saturating_sub(self.confirmed_us.load(Ordering::Relaxed)))
    }

    /// Checks a token for the endpoint, now on both clocks.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn verify<'a>(
        &self,
        token: &'a [u8],
        rules: &Rules,
        endpoint: &str,
        (now, now_us): (SystemTime, u64),
    ) -> Result<Verified<'a>, Fault> {
        if rules.issuer.is_empty() || rules.audiences.is_empty() {
            return Err(Fault::NotConfigured);
        }
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(Fault::NoKeys)?;
        if self.age(now_us) > rules.stale_max {
            return Err(Fault::StaleKeys);
        }
        let verdict = verify(token, keys, rules, endpoint, now);
        if matches!(verdict, Err(Fault::UnknownKey)) {
            self.wanted.set();
        }
        verdict
    }

    /// Waits until a token with an unknown key came since this was last done. For one who waits.
    pub async fn wanted(&self) {
        poll_fn(|context| {
            *self.wanted.waiting.lock() = Some(context.waker().clone());
            // After the waker is there: whoever sets this now finds it.
            if self.wanted.is_set.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// What tokens wanted until now has been read.
    pub fn satisfy(&self) {
        self.wanted.is_set.store(false, Ordering::Release);
    }
}

impl Wanted {
    /// However many tokens come, one of them pays for more than a look.
    fn set(&self) {
        if self.is_set.load(Ordering::Relaxed) || self.is_set.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = self.waiting.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
