//! Pauses between attempts: doubling up to a limit, each of random length, so that the routers of a fleet that lost
//! their API server together do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::core::dice::Dice;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    dice: Dice,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, dice: Dice::new(RandomState::new().hash_one(0)) }
    }
}

impl Backoff {
    /// Things work: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Pauses.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.pause()).await;
    }

    /// Between half and the whole of what is due.
    fn pause(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(LONGEST);
        let half = u32::try_from(due.as_millis() / 2).unwrap_or(u32::MAX).max(1);
        Duration::from_millis(u64::from(half) + u64::from(self.dice.below(half)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
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
        assert_ne!(pauses(Backoff::default()), pauses(Backoff::default()));
    }
}
