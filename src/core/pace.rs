//! How fast a deployment works off its queue, and how many retries it has left.
//!
//! Both are read only when something went wrong (a request is turned away, an attempt failed), so nothing is kept
//! per request: they look at totals that are counted anyway, and at how those grew since they last looked.
//!
//! - Drain rate: requests completed per second, smoothed over some seconds.
//!   `Retry-After` = requests ahead / rate, rounded up, within 1-30 s.
//! - Retry budget: retries may be a fifth of the requests of the last ten seconds, and ten are always allowed.

use std::time::{Duration, Instant};

/// Looks shorter than this apart are not measured: too noisy.
const LOOK_MIN: Duration = Duration::from_millis(250);
/// A measurement this old says nothing any more.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// The bounds of `Retry-After`, in seconds.
const RETRY_AFTER: std::ops::RangeInclusive<f64> = 1.0..=30.0;
/// Retries that are allowed in any window, whatever the traffic.
const RETRIES_MIN: u64 = 10;
/// One retry is allowed for every so many requests.
const REQUESTS_PER_RETRY: u64 = 5;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Pace {
    drain: Option<Drain>,
    retries: Option<Window>,
}

#[derive(Debug)]
struct Drain {
    at: Instant,
    completed: u64,
    per_second: Option<f64>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    requests_before: u64,
    requests_last: u64,
    retries: u64,
    retries_last: u64,
}

impl Pace {
    /// Looks at the total of completed requests.
    pub fn observe(&mut self, completed: u64, now: Instant) {
        let Some(drain) = &mut self.drain else {
            self.drain = Some(Drain { at: now, completed, per_second: None });
            return;
        };
        let passed = now.saturating_duration_since(drain.at);
        if passed < LOOK_MIN {
            return;
        }
        if passed > LOOK_MAX {
            // Nobody was turned away for so long: what was completed is what was asked for, not what could be done.
            *drain = Drain { at: now, completed, per_second: None };
            return;
        }
        let rate = completed.saturating_sub(drain.completed) as f64 / passed.as_secs_f64();
        // The longer the look, the more it counts against what was known before.
        let weight = (passed.as_secs_f64() / LOOK_MAX.as_secs_f64() * 4.0).min(1.0);
        let smoothed = drain.per_second.map_or(rate, |before| before + (rate - before) * weight);
        *drain = Drain { at: now, completed, per_second: Some(smoothed) };
    }

    /// Completed requests per second, where measured.
    pub fn drain_rate(&self) -> Option<f64> {
        self.drain.as_ref()?.per_second
    }

    /// Whole seconds after which a request that finds `ahead` others before it may hope for its turn. Unmeasured: 1.
    pub fn retry_after_seconds(&self, ahead: usize) -> u32 {
        let seconds = self.drain_rate().map_or(*RETRY_AFTER.start(), |rate| (ahead as f64 + 1.0) / rate);
        seconds.ceil().clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()) as u32
    }

    /// Takes one retry out of the budget, if there is one left. `requests` is the total of requests so far.
    pub fn try_retry(&mut self, requests: u64, now: Instant) -> bool {
        let fresh = Window { since: now, requests_before: requests, requests_last: 0, retries: 0, retries_last: 0 };
        let window = self.retries.get_or_insert(fresh);
        let passed = now.saturating_duration_since(window.since);
        if passed >= LOOK_MAX {
            // What happened before the last window but one is forgotten.
            let recent = passed < LOOK_MAX * 2;
            *window = Window {
                since: now,
                requests_last: if recent { requests.saturating_sub(window.requests_before) } else { 0 },
                retries_last: if recent { window.retries } else { 0 },
                requests_before: requests,
                retries: 0,
            };
        }
        let seen = requests.saturating_sub(window.requests_before) + window.requests_last;
        let allowed = window.retries + window.retries_last < RETRIES_MIN + seen / REQUESTS_PER_RETRY;
        if allowed {
            window.retries += 1;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_the_queue_divided_by_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.retry_after_seconds(50), 1, "nothing measured yet");
        pace.observe(100, start);
        pace.observe(110, start + Duration::from_secs(5));
        assert_eq!(pace.drain_rate(), Some(2.0));
        assert_eq!(pace.retry_after_seconds(0), 1);
        assert_eq!(pace.retry_after_seconds(9), 5);
        assert_eq!(pace.retry_after_seconds(1000), 30);
    }

    #[test]
    fn a_stuck_deployment_asks_for_the_longest_pause() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.observe(5, start);
        pace.observe(5, start + Duration::from_secs(9));
        assert_eq!(pace.retry_after_seconds(0), 30);
    }

    #[test]
    fn a_quiet_hour_says_nothing_about_the_pace() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.observe(0, start);
        pace.observe(100, start + Duration::from_secs(1));
        let later = start + Duration::from_secs(3600);
        pace.observe(160, later);
        assert_eq!(pace.drain_rate(), None, "60 requests in an hour were all there were, not all that it could do");
        assert_eq!(pace.retry_after_seconds(9), 1);
        pace.observe(170, later + Duration::from_secs(1));
        assert_eq!(pace.drain_rate(), Some(10.0));
    }

    #[test]
    fn looks_in_quick_succession_are_one_look() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.observe(0, start);
        pace.observe(1000, start + Duration::from_millis(1));
        assert_eq!(pace.drain_rate(), None);
    }

    #[test]
    fn a_fifth_of_recent_requests_may_be_retried() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut requests = 0;
        for _ in 0..10 {
            assert!(pace.try_retry(requests, start), "ten are always allowed");
        }
        assert!(!pace.try_retry(requests, start));
        requests += 50;
        for _ in 0..10 {
            assert!(pace.try_retry(requests, start));
        }
        assert!(!pace.try_retry(requests, start));
        assert!(pace.try_retry(requests, start + Duration::from_secs(60)), "the past is forgotten");
    }
}
