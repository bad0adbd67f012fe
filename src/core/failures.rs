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
//! forget; the table has a fixed number of places, in sets of `WAYS`, and a newcomer takes the place of whoever of its
//! set would be forgiven first, so those who fail most are the last to be forgotten. A client with IPv6 has a whole /64
//! to itself and counts as one.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::addresses::of_one_client;

/// What a minute forgives is what is free; microseconds.
const WINDOW_US: u64 = 60_000_000;
/// The first delay.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Places of a set.
const WAYS: usize = 8;

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
        self.addresses_max.div_ceil(WAYS).max(1) * WAYS
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

/// What is known of one address.
#[derive(Clone, Copy, Debug)]
struct Entry {
    client: IpAddr,
    /// When all its failures are forgiven, in microseconds on the router's clock. In the past: the place is free.
    clear_us: u64,
}

const FREE: Entry = Entry { client: IpAddr::V4(Ipv4Addr::UNSPECIFIED), clear_us: 0 };

type Set = Mutex<[Entry; WAYS]>;

/// See the head of the file. Takes no memory until somebody fails.
#[derive(Debug, Default)]
pub struct Failures {
    /// Random, so that nobody can choose addresses that all meet in one set.
    hasher: RandomState,
    sets: OnceLock<Box<[Set]>>,
}

impl Failures {
    /// Notes that an address failed, at `now_us` on the router's clock, and says when to answer.
    pub fn note(&self, rules: &Rules, address: IpAddr, now_us: u64) -> Verdict {
        if rules.delay_max.is_zero() {
            return Verdict::AtOnce;
        }
        let client = of_one_client(address);
        let sets = self.sets.get_or_init(|| sets(rules.places()));
        let at = self.hasher.hash_one(client) as usize % sets.len().max(1);
        let Some(set) = sets.get(at) else { return Verdict::AtOnce };
        let mut entries = set.lock();
        // One that is known, or else whoever would be forgiven first, which is a free place if there is any.
        let (known, others) = (|entry: &&mut Entry| entry.client == client, |entry: &&mut Entry| entry.clear_us);
        let found = match entries.iter_mut().find(known) {
            Some(entry) => Some(entry),
            None => entries.iter_mut().min_by_key(others),
        };
        let Some(entry) = found else { return Verdict::AtOnce };
        let before = if entry.client == client { entry.clear_us } else { 0 };
        let (clear_us, verdict) = rules.fail(before, now_us);
        *entry = Entry { client, clear_us };
        verdict
    }

    /// Addresses with a failure that is not forgiven by `now_us`.
    pub fn len(&self, now_us: u64) -> usize {
        let count = |set: &Set| set.lock().iter().filter(|entry| entry.clear_us > now_us).count();
        self.sets.get().map_or(0, |sets| sets.iter().map(count).sum())
    }
}

fn sets(places: usize) -> Box<[Set]> {
    (0..places / WAYS).map(|_| Mutex::new([FREE; WAYS])).collect()
}

#[cfg(test)]
mod tests;
