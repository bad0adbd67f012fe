//! Pauses between attempts: doubling up to a limit, each of random length, so that the routers of a fleet that lost
//! their API server or their issuer together do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::core::dice::Dice;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    dice: Dice,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, dice: Dice::new(RandomState::new().hash_one(0)) }
    }

    /// Things work: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Pauses.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.pause()).await;
    }

    /// The next pause: between half and the whole of what is due.
    pub(super) fn pause(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.longest);
        self.spread(due)
    }

    /// A pause between half and the whole of a time.
    pub(super) fn spread(&mut self, whole: Duration) -> Duration {
        let half = u32::try_from(whole.as_millis() / 2).unwrap_or(u32::MAX).max(1);
        Duration::from_millis(u64::from(half) + u64::from(self.dice.below(half)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(15);

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut due = FIRST;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(pause >= due / 2 && pause <= due, "{pause:?} of {due:?}");
            due = (due * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn two_routers_do_not_pause_alike() {
        let pauses = |mut backoff: Backoff| (0..8).map(|_| backoff.pause()).collect::<Vec<_>>();
        assert_ne!(pauses(Backoff::new(FIRST, LONGEST)), pauses(Backoff::new(FIRST, LONGEST)));
    }
}
