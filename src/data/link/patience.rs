//! How long a client is waited for that a write is waiting for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::core::count::micros;
use crate::data::worker::Worker;

/// See the head of the file. On the router's clock, in microseconds.
#[derive(Debug)]
pub(super) struct Patience {
    /// Since when a write has been waiting; 0 when none is.
    blocked_us: AtomicU64,
    /// How long it may from then on.
    left_us: AtomicU64,
    /// The most that can be.
    grace_us: u64,
}

impl Patience {
    pub(super) fn new(grace: Duration) -> Self {
        let grace_us = micros(grace);
        Self { blocked_us: AtomicU64::new(0), left_us: AtomicU64::new(grace_us), grace_us }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_us.load(Ordering::Relaxed) != 0
    }

    /// Whether no write is waiting, nor has been of late: then those that go out at once change nothing.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_blocked() && self.left_us.load(Ordering::Relaxed) == self.grace_us
    }

    /// Until when, where a write is waiting.
    pub(super) fn ends(&self) -> Option<u64> {
        let since = Some(self.blocked_us.load(Ordering::Relaxed)).filter(|&since| since != 0)?;
        Some(since.saturating_add(self.left_us.load(Ordering::Relaxed)))
    }

    /// A write took so many bytes.
    pub(super) fn wrote(&self, bytes: usize, worker: &Worker) {
        if self.is_whole() {
            return;
        }
        let (since, left) = (self.blocked_us.load(Ordering::Relaxed), self.left_us.load(Ordering::Relaxed));
        let now = if since == 0 { since } else { worker.micros(Instant::now()) };
        let waited = Duration::from_micros(now.saturating_sub(since));
        let left = worker.limits().answer_tempo().after(Duration::from_micros(left), waited, bytes as u64);
        self.left_us.store(micros(left), Ordering::Relaxed);
        self.blocked_us.store(0, Ordering::Relaxed);
    }

    /// A write has to wait.
    pub(super) fn could_not_write(&self, worker: &Worker) {
        if !self.is_blocked() {
            self.blocked_us.store(worker.micros(Instant::now()).max(1), Ordering::Relaxed);
        }
    }
}
