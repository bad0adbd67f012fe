//! How much of something may pass in a second, and at a time.
//!
//! Owner: the live state of an endpoint holds a [`Meter`] for it and one for each of its keys; `data` asks them.
//! Holds: in any time `t` a bucket grants at most `burst + rate * t`, from however many threads; nothing in here waits.
//!
//! A bucket is one number (the generic cell rate algorithm): the time by which everything granted so far would have
//! passed at the even rate. It may lie ahead of now by as much as the burst takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// What may pass; the default is everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Requests in a second.
    pub per_second: Option<u32>,
    /// Requests at once after a pause; as many as in a second where it is not said.
    pub burst: Option<u32>,
    /// Requests under way at a time.
    pub concurrent: Option<u32>,
}

impl Limit {
    /// Whether anything is limited.
    pub fn is_set(&self) -> bool {
        self.per_second.is_some() || self.concurrent.is_some()
    }

    /// The rate, where one is set.
    pub fn pace(&self) -> Option<Pace> {
        let per_second = u64::from(self.per_second?.max(1));
        let burst = self.burst.map_or(per_second, u64::from).max(1);
        let interval = SECOND.div_ceil(per_second);
        Some(Pace { interval, reach: interval.saturating_mul(burst) })
    }
}

/// A rate, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two requests at the even rate.
    interval: u64,
    /// What the burst takes at that rate.
    reach: u64,
}

impl Pace {
    /// How far ahead of `now` the number of a bucket may be. What is beyond was left by a limit that was slower, and counts
    /// as empty as a bucket of this one can be. The second is for threads that read the clock before others did.
    pub fn cap(self, now: u64) -> impl Fn(u64) -> u64 {
        let empty = now.saturating_add(self.reach);
        move |ahead| if ahead > empty.saturating_add(SECOND) { empty } else { ahead }
    }

    /// The number after one more request.
    ///
    /// # Errors
    /// How long until one passes.
    pub fn take(self, ahead: u64, now: u64) -> Result<u64, u64> {
        let next = ahead.max(now).saturating_add(self.interval);
        let over = next.saturating_sub(now.saturating_add(self.reach));
        if over > 0 { Err(over) } else { Ok(next) }
    }

    /// The number without one request.
    pub fn put_back(self, ahead: u64) -> u64 {
        ahead.saturating_sub(self.interval)
    }
}

/// Which of the two was in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The rate; the next one is granted after so many nanoseconds.
    Rate {
        /// Until then.
        wait_ns: u64,
    },
    /// Too many are under way.
    Concurrency,
}

impl Over {
    /// Whole seconds after which it is worth another try.
    pub fn retry_after_seconds(self) -> u32 {
        match self {
            Self::Rate { wait_ns } => u32::try_from(wait_ns.div_ceil(SECOND).max(1)).unwrap_or(u32::MAX),
            Self::Concurrency => 1,
        }
    }
}

/// Grants at a rate, with bursts.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one, or says how long until there is one.
    fn take(&self, pace: Pace, now: u64) -> Result<(), u64> {
        let cap = pace.cap(now);
        let mut ahead = self.0.load(Ordering::Relaxed);
        loop {
            let (next, verdict) = match pace.take(cap(ahead), now) {
                Ok(next) => (next, Ok(())),
                // Written down too, or time would never bring such a bucket nearer to full.
                Err(wait) => (cap(ahead), Err(wait)),
            };
            if next == ahead {
                return verdict;
            }
            match self.0.compare_exchange_weak(ahead, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return verdict,
                Err(found) => ahead = found,
            }
        }
    }

    /// Puts back one that was taken and not used.
    fn put_back(&self, pace: Pace) {
        self.0.fetch_sub(pace.interval, Ordering::Relaxed);
    }
}

/// What passes at one place.
#[derive(Debug, Default)]
pub struct Meter {
    bucket: Bucket,
    under_way: AtomicU32,
}

/// One that passes; under way until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Meter>);

impl Meter {
    /// Lets one pass at `now`, in nanoseconds on whatever clock, always the same.
    ///
    /// # Errors
    /// What was in the way. Nothing was taken then.
    pub fn admit(self: &Arc<Self>, limit: &Limit, now: u64) -> Result<Permit, Over> {
        let most = limit.concurrent.unwrap_or(u32::MAX);
        let enter = |count: u32| (count < most).then(|| count.saturating_add(1));
        if self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_err() {
            return Err(Over::Concurrency);
        }
        let permit = Permit(self.clone());
        if let Some(pace) = limit.pace() {
            self.bucket.take(pace, now).map_err(|wait_ns| Over::Rate { wait_ns })?;
        }
        Ok(permit)
    }

    /// How many are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// For one that was let pass here and turned away elsewhere: it counts for nothing.
    pub fn unused(self, limit: &Limit) {
        if let Some(pace) = limit.pace() {
            self.0.bucket.put_back(pace);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Limit {
        Limit { per_second: Some(per_second), burst: Some(burst), concurrent: None }
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let (meter, limit) = (Arc::new(Meter::default()), rate(10, 3));
        let start = 5 * SECOND;
        let admit = |now| meter.admit(&limit, now).map(drop);
        for _ in 0..3 {
            assert_eq!(admit(start), Ok(()));
        }
        assert_eq!(admit(start), Err(Over::Rate { wait_ns: SECOND / 10 }));
        assert_eq!(admit(start + SECOND / 10 - 1), Err(Over::Rate { wait_ns: 1 }));
        assert_eq!(admit(start + SECOND / 10), Ok(()));
        assert!(admit(start + SECOND / 10).is_err(), "a refusal costs nothing and brings nothing");
        for _ in 0..3 {
            assert_eq!(admit(start + 100 * SECOND), Ok(()), "a pause fills it up");
        }
        assert!(admit(start + 100 * SECOND).is_err(), "but not further");
    }

    #[test]
    fn the_wait_is_rounded_up_to_whole_seconds() {
        for (wait_ns, seconds) in [(1, 1), (SECOND, 1), (SECOND + 1, 2), (90 * SECOND, 90)] {
            assert_eq!(Over::Rate { wait_ns }.retry_after_seconds(), seconds);
        }
        assert_eq!(Over::Concurrency.retry_after_seconds(), 1);
    }

    #[test]
    fn a_burst_that_is_not_set_is_what_passes_in_a_second() {
        let (meter, limit) = (Arc::new(Meter::default()), Limit { per_second: Some(4), ..Limit::default() });
        let passed = (0..10).filter(|_| meter.admit(&limit, 0).is_ok()).count();
        assert_eq!(passed, 4);
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let (meter, limit) = (Arc::new(Meter::default()), Limit { concurrent: Some(2), ..Limit::default() });
        let first = meter.admit(&limit, 0).unwrap();
        let second = meter.admit(&limit, 0).unwrap();
        assert_eq!(meter.admit(&limit, 0).map(drop), Err(Over::Concurrency));
        assert_eq!(meter.under_way(), 2);
        drop(first);
        drop(meter.admit(&limit, 0).unwrap());
        drop(second);
        assert_eq!(meter.under_way(), 0);
    }

    #[test]
    fn who_is_over_the_rate_takes_no_place() {
        let meter = Arc::new(Meter::default());
        let limit = Limit { concurrent: Some(5), ..rate(1, 1) };
        let held = meter.admit(&limit, 0).unwrap();
        assert!(meter.admit(&limit, 0).is_err());
        assert_eq!(meter.under_way(), 1);
        held.unused(&limit);
        assert!(meter.admit(&limit, 0).is_ok(), "what was not used can be taken again");
    }

    #[test]
    fn a_raised_rate_does_not_wait_for_what_a_slow_one_owes() {
        let (meter, slow) = (Arc::new(Meter::default()), rate(1, 1000));
        (0..1000).for_each(|_| drop(meter.admit(&slow, 0).unwrap()));
        let fast = rate(1000, 10);
        assert!(meter.admit(&fast, 1).is_err(), "empty is empty");
        assert!(meter.admit(&fast, SECOND / 100).is_ok());
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_burst_and_the_rate(
            per_second in 1_u32..2_000,
            burst in 1_u32..50,
            steps in prop::collection::vec(0_u64..20_000_000, 1..300),
        ) {
            let (meter, limit) = (Arc::new(Meter::default()), rate(per_second, burst));
            let mut now = 0;
            let mut granted = Vec::new();
            for step in steps {
                now += step;
                if meter.admit(&limit, now).is_ok() {
                    granted.push(now);
                }
            }
            for (first, from) in granted.iter().enumerate() {
                for (last, to) in granted.iter().enumerate().skip(first) {
                    let allowed = f64::from(burst) + f64::from(per_second) * (to - from) as f64 / SECOND as f64;
                    prop_assert!((last - first + 1) as f64 <= allowed + 1e-6, "{} in {} ns", last - first + 1, to - from);
                }
            }
        }
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let (meter, limit) = (Arc::new(Meter::default()), rate(1_000, 500));
        let passed: usize = std::thread::scope(|scope| {
            let work = || (0..1_000_u64).filter(|tick| meter.admit(&limit, tick * 100_000).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((500..=600).contains(&passed), "{passed} in a tenth of a second");
    }
}
