//! What all endpoints have in common, and how much of it one of them may take: requests under way, places in line,
//! bytes kept of bodies.
//!
//! The rule: an endpoint may have at most `percent` of what the others leave of the whole. Alone it may have nearly
//! everything; as others come it may have less, and gets nothing more until it has come down to that. So there is always
//! room for one that has nothing yet, however many flood:
//!
//! ```text
//! own <= percent * (max - others)        n that want everything have p/(1+(n-1)p) of it each; (1-p)/(1+(n-1)p) is free
//! ```
//!
//! Owner: the whole is in [`super::vitals::Vitals`], the endpoint's part is live state that outlives snapshots.
//! Holds: never more than `max` taken in all; whoever took gives back the same; the shares are judged on counts that other
//!        threads change meanwhile, so an endpoint may be over its share by one request for each thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::count::Counter;

/// How much there is of one thing, and how much of what others leave one endpoint may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The most that all may have.
    pub max: usize,
    /// 1 to 100; with 100 there are no shares.
    pub percent: u32,
}

/// Which of the two was in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All have as much as they may.
    Whole,
    /// The endpoint has its share.
    Share,
}

impl Rule {
    /// Takes `amount` for an endpoint, of which `own` counts what it has, and `all` what all have.
    ///
    /// # Errors
    /// What is in the way; then nothing is taken.
    pub fn take(self, all: &AtomicUsize, own: &AtomicUsize, amount: usize) -> Result<(), Over> {
        let before = all.fetch_add(amount, Ordering::Relaxed);
        let had = own.fetch_add(amount, Ordering::Relaxed);
        let judged = self.judge(before, had, amount);
        if judged.is_err() {
            give_back(all, own, amount);
        }
        judged
    }

    /// Whether an endpoint that has `own` of `all` may have so much more.
    ///
    /// # Errors
    /// What is in the way.
    pub fn judge(self, all: usize, own: usize, amount: usize) -> Result<(), Over> {
        if all.saturating_add(amount) > self.max {
            return Err(Over::Whole);
        }
        if self.percent < 100 && own.saturating_add(amount) > self.share(all.saturating_sub(own)) {
            return Err(Over::Share);
        }
        Ok(())
    }

    /// How much an endpoint may have while the others have `others`. Rounded up: one may always be had.
    pub fn share(self, others: usize) -> usize {
        let left = self.max.saturating_sub(others) as u128;
        usize::try_from((left * u128::from(self.percent)).div_ceil(100)).unwrap_or(usize::MAX)
    }
}

/// Takes what is there already, whatever the rule says.
pub fn take_anyway(all: &AtomicUsize, own: &AtomicUsize, amount: usize) {
    all.fetch_add(amount, Ordering::Relaxed);
    own.fetch_add(amount, Ordering::Relaxed);
}

/// Gives back what was taken.
pub fn give_back(all: &AtomicUsize, own: &AtomicUsize, amount: usize) {
    own.fetch_sub(amount, Ordering::Relaxed);
    all.fetch_sub(amount, Ordering::Relaxed);
}

/// What one endpoint has of each.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shares {
    /// Requests under way.
    pub requests: AtomicUsize,
    /// Those of them that wait in line.
    pub queued: AtomicUsize,
    /// Bytes kept of request bodies.
    pub replay: AtomicUsize,
    refused: [Counter; Limit::ALL.len()],
    /// When it was last said in the log that it has its share, in seconds on the router's clock; 0: never.
    said_at: AtomicU64,
}

/// A limit that an endpoint's requests can run into because of what all have, or of its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max-memory-bytes`.
    Memory,
    /// `max-requests`.
    Requests,
    /// The endpoint's share of those.
    RequestsShare,
    /// `max-queued-requests`.
    Queue,
    /// The endpoint's share of those.
    QueueShare,
    /// `max-replay-bytes-total`: the request goes on without the chance of another attempt.
    Replay,
    /// The endpoint's share of that.
    ReplayShare,
    /// File descriptors of the process, for a connection to a replica.
    Descriptors,
}

impl Limit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::Requests,
        Self::RequestsShare,
        Self::Queue,
        Self::QueueShare,
        Self::Replay,
        Self::ReplayShare,
        Self::Descriptors,
    ];

    /// The word for metrics and for clients.
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Requests => "requests",
            Self::RequestsShare => "requests-share",
            Self::Queue => "queue",
            Self::QueueShare => "queue-share",
            Self::Replay => "replay",
            Self::ReplayShare => "replay-share",
            Self::Descriptors => "descriptors",
        }
    }
}

/// Seconds between two lines in the log about one endpoint.
const QUIET: u64 = 60;

impl Shares {
    /// Counts a request that ran into a limit.
    pub fn refuse(&self, limit: Limit) {
        if let Some(count) = self.refused.get(limit as usize) {
            count.bump();
        }
    }

    /// How many ran into it.
    pub fn refused(&self, limit: Limit) -> u64 {
        self.refused.get(limit as usize).map_or(0, Counter::read)
    }

    /// Whether it is time to say in the log that it has its share. `now` is in seconds.
    pub fn should_tell(&self, now: u64) -> bool {
        let (now, said) = (now.max(1), self.said_at.load(Ordering::Relaxed));
        let due = said == 0 || now >= said.saturating_add(QUIET);
        due && self.said_at.compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(of: &[usize]) -> Vec<AtomicUsize> {
        of.iter().map(|&n| AtomicUsize::new(n)).collect()
    }

    #[test]
    fn alone_an_endpoint_has_its_percentage_and_the_rest_is_for_others() {
        let rule = Rule { max: 100, percent: 80 };
        let (all, own) = (AtomicUsize::new(0), numbers(&[0, 0]));
        let fill = |of: &AtomicUsize| {
            let mut taken = 0;
            while rule.take(&all, of, 1).is_ok() {
                taken += 1;
            }
            taken
        };
        assert_eq!(fill(&own[0]), 80);
        assert_eq!(rule.take(&all, &own[0], 1), Err(Over::Share));
        // What the first leaves is 20, and of that the second may have 80 percent.
        assert_eq!(fill(&own[1]), 16);
        // Now the first has too much: it gets nothing more until it has come down to its share.
        assert_eq!(rule.share(16), 68);
        for _ in 0..12 {
            give_back(&all, &own[0], 1);
            assert_eq!(rule.take(&all, &own[0], 1), Err(Over::Share));
        }
        give_back(&all, &own[0], 1);
        assert_eq!(rule.take(&all, &own[0], 1), Ok(()));
    }

    #[test]
    fn without_shares_only_the_whole_counts() {
        let rule = Rule { max: 3, percent: 100 };
        let (all, own) = (AtomicUsize::new(0), AtomicUsize::new(0));
        assert_eq!(rule.take(&all, &own, 3), Ok(()));
        assert_eq!(rule.take(&all, &own, 1), Err(Over::Whole));
        assert_eq!(all.into_inner(), 3);
    }

    #[test]
    fn of_a_whole_of_one_that_one_may_be_had() {
        let rule = Rule { max: 1, percent: 1 };
        assert_eq!(rule.take(&AtomicUsize::new(0), &AtomicUsize::new(0), 1), Ok(()));
    }

    #[test]
    fn the_log_hears_of_an_endpoint_once_in_a_while() {
        let shares = Shares::default();
        assert_eq!([0, 1, 60, 61, 62].map(|now| shares.should_tell(now)), [true, false, false, true, false]);
    }

    proptest! {
        /// Whatever is asked for and given back in whatever order: the sum is right and never over the whole, and an
        /// endpoint that has nothing is turned away only if less is free than it asks for, or than its part of that.
        #[test]
        fn there_is_room_for_whoever_has_nothing(
            max in 1_usize..200,
            percent in 1_u32..=100,
            asked in prop::collection::vec((0_usize..6, 0_usize..8, any::<bool>()), 0..400),
        ) {
            let rule = Rule { max, percent };
            let (all, own) = (AtomicUsize::new(0), numbers(&[0; 6]));
            let mut model = [0_usize; 6];
            for (who, amount, takes) in asked {
                let free = max - model.iter().sum::<usize>();
                if !takes {
                    let amount = amount.min(model[who]);
                    give_back(&all, &own[who], amount);
                    model[who] -= amount;
                } else if rule.take(&all, &own[who], amount).is_ok() {
                    model[who] += amount;
                    prop_assert!(amount == 0 || model[who] <= rule.share(model.iter().sum::<usize>() - model[who]));
                } else if model[who] == 0 {
                    prop_assert!(amount > free || amount > rule.share(max - free));
                    prop_assert!(amount > 1 || free == 0, "one is to be had as long as anything is free");
                }
                prop_assert!(model.iter().sum::<usize>() <= max);
                prop_assert_eq!(all.load(Ordering::Relaxed), model.iter().sum::<usize>());
                for (own, model) in own.iter().zip(model) {
                    prop_assert_eq!(own.load(Ordering::Relaxed), model);
                }
            }
        }
    }
}
