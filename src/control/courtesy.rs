//! Between two steps of long work the control thread lets whoever serves requests on its core go first.
//!
//! It is nice already ([`crate::ops::priority`]), but niceness does not end a slice: what has the core keeps it for some
//! 0.7 ms, which is many requests. A yield does. On a core that others use up it is dear, though: a nice thread that
//! yields there comes back some 15 ms later, and with hundreds of steps to go it would get nothing done. So yields have
//! an allowance: they may take [`SHARE`] of the time that passes, and when they took more, there are none for a while.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The part of all time that may be waited away: one in so many.
const SHARE: u32 = 4;
/// The most that may be saved up. More would be spent in one go when the core becomes busy.
const SAVED_MAX: Duration = Duration::from_millis(2);
/// What a yield is taken to have cost at most: a process that was stopped for an hour does without yields for seconds.
const COST_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static ALLOWANCE: Cell<Option<Allowance>> = const { Cell::new(None) };
}

/// Lets other threads have the core, unless that took too long lately. Called between steps of less than a tenth of a
/// millisecond.
pub(super) fn give_way() {
    let now = Instant::now();
    let mut allowance = ALLOWANCE.get().unwrap_or_else(|| Allowance::full(now));
    if allowance.has_some(now) {
        std::thread::yield_now();
        allowance.spend(now.elapsed());
    }
    ALLOWANCE.set(Some(allowance));
}

/// Time that may be waited away, saved up while time passes.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// From when on there is some. It lies before now by what was saved, times [`SHARE`].
    from: Instant,
}

impl Allowance {
    fn full(now: Instant) -> Self {
        // At most some milliseconds after boot there may be no such moment; it fills up from there.
        Self { from: now.checked_sub(SAVED_MAX * SHARE).unwrap_or(now) }
    }

    fn has_some(&mut self, now: Instant) -> bool {
        self.from = self.from.max(Self::full(now).from);
        self.from < now
    }

    fn spend(&mut self, took: Duration) {
        self.from += took.min(COST_MAX) * SHARE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of `work` whose yields come back after `away`, for a second: how many yielded, and what part of the second
    /// was waited away.
    fn second_of(work: Duration, away: Duration) -> (u32, f64) {
        let start = Instant::now();
        let (mut now, mut allowance) = (start, Allowance::full(start));
        let mut yields = 0;
        while now < start + Duration::from_secs(1) {
            now += work;
            if allowance.has_some(now) {
                now += away;
                allowance.spend(away);
                yields += 1;
            }
        }
        (yields, (away * yields).as_secs_f64() / (now - start).as_secs_f64())
    }

    #[test]
    fn yields_that_come_back_soon_are_taken_after_each_step() {
        let (yields, _) = second_of(Duration::from_micros(50), Duration::from_nanos(300));
        assert_eq!(yields, 19_881);
        let (yields, _) = second_of(Duration::from_micros(40), Duration::from_micros(10));
        assert_eq!(yields, 20_000);
    }

    #[test]
    fn dear_yields_take_a_quarter_of_the_time_at_most() {
        for away in [100, 1_000, 15_000, 100_000].map(Duration::from_micros) {
            let (yields, share) = second_of(Duration::from_micros(30), away);
            assert!(yields > 0, "{away:?}: none at all");
            // One that was begun is waited for.
            let begun_last = away.as_secs_f64();
            assert!(share <= 0.25 + begun_last + 0.002, "{away:?}: {share}");
        }
    }

    #[test]
    fn an_hour_away_is_forgotten_in_seconds() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        allowance.spend(Duration::from_secs(3600));
        let later = start + COST_MAX * SHARE;
        assert!(!allowance.has_some(later - SAVED_MAX * (SHARE + 1)));
        assert!(allowance.has_some(later));
    }

    #[test]
    fn what_is_saved_up_is_bounded() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let later = start + Duration::from_secs(3600);
        assert!(allowance.has_some(later));
        allowance.spend(SAVED_MAX);
        assert!(!allowance.has_some(later), "an hour of calm gives no more than {SAVED_MAX:?}");
        assert!(allowance.has_some(later + Duration::from_millis(1)));
    }
}
