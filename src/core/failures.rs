//! How often each client address failed lately to prove who it is, and how late its next failure is answered.
//!
//! Owner: the data plane, one table for all workers. Only failures touch it: a request with right credentials does not
//! know that it exists.
//!
//! An address may fail [`Rules::free`] times and be answered at once; every minute forgives as many. Each further failure
//! doubles the delay: 100 ms, 200 ms, 400 ms and so on up to [`Rules::delay_max`]. Failures beyond the longest delay
//! are not added up, so the way back is never longer than a minute and as many steps as there are delays.
//!
//! Holds: what is known of an address is one number, the moment at which all will be forgiven, so time alone makes it
//! forget; the table ([`Debts`]) does not grow, and those who fail most are the last to be forgotten. A client with IPv6
//! has a whole /64 to itself and counts as one.

use std::net::IpAddr;
use std::time::Duration;

use super::addresses::of_one_client;
use super::debts::{self, Debts};

/// What a minute forgives is what is free; microseconds.
const WINDOW_US: u64 = 60_000_000;
/// The first delay.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// Each field is a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Failures of one address that are answered at once; as many are forgiven in a minute.
    pub free: u32,
    /// The longest delay of an answer; zero: none is ever late.
    pub delay_max: Duration,
    /// Answers that may be held back at a time.
    pub held_max: usize,
    /// Addresses whose failures are remembered.
    pub addresses_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { free: 10, delay_max: Duration::from_millis(3000), held_max: 1000, addresses_max: 10_000 }
    }
}

impl Rules {
    /// Places of the table.
    pub fn places(&self) -> usize {
        debts::places(self.addresses_max)
    }

    /// How long it takes until one failure is forgiven, in microseconds.
    fn step_us(&self) -> u64 {
        WINDOW_US / u64::from(self.free.max(1))
    }

    /// The delay of the `over`th failure above what is free.
    fn delay(&self, over: u64) -> Duration {
        let doublings = u32::try_from(over.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        DELAY_MIN.saturating_mul(1 << doublings).min(self.delay_max)
    }

    /// How many failures above what is free make the longest delay.
    fn over_max(&self) -> u64 {
        (1..=21).find(|&over| self.delay(over) == self.delay_max).unwrap_or(21)
    }

    /// One more failure of an address that would have been forgiven all at `clear_us`.
    fn fail(&self, clear_us: u64, now_us: u64) -> (u64, Verdict) {
        let (step, free) = (self.step_us(), u64::from(self.free));
        let most = step.saturating_mul(free.saturating_add(self.over_max()));
        let debt = clear_us.saturating_sub(now_us).saturating_add(step).min(most);
        let clear_us = now_us.saturating_add(debt);
        let over = debt.div_ceil(step).saturating_sub(free);
        if over == 0 {
            return (clear_us, Verdict::AtOnce);
        }
        // One more must be free by then.
        let wait = debt.saturating_sub(step.saturating_mul(free.saturating_sub(1)));
        (clear_us, Verdict::Late { delay: self.delay(over), free_in: Duration::from_micros(wait) })
    }
}

/// When a failure is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As everything else.
    AtOnce,
    /// The address has failed too often.
    Late {
        /// How long the answer is to be held back.
        delay: Duration,
        /// When a failure is answered at once again, if there is none until then.
        free_in: Duration,
    },
}

/// See the head of the file. Takes no memory until somebody fails. Times are microseconds on the router's clock.
#[derive(Debug, Default)]
pub struct Failures(Debts<IpAddr>);

impl Failures {
    /// Notes that an address failed, and says when to answer.
    pub fn note(&self, rules: &Rules, address: IpAddr, now_us: u64) -> Verdict {
        if rules.delay_max.is_zero() {
            return Verdict::AtOnce;
        }
        let client = Some(of_one_client(address));
        let place = client.and_then(|client| self.0.place(rules.addresses_max, client));
        let Some(mut place) = place else { return Verdict::AtOnce };
        let before = if place.debtor == client { place.clear } else { 0 };
        let (clear_us, verdict) = rules.fail(before, now_us);
        (place.debtor, place.clear) = (client, clear_us);
        verdict
    }

    /// Addresses with a failure that is not forgiven by `now_us`.
    pub fn len(&self, now_us: u64) -> usize {
        self.0.len(now_us)
    }
}

#[cfg(test)]
mod tests;
