//! Failed attempts to prove who one is, answered late.
//!
//! Owner: the exchange, from the moment it is refused until its answer is held back no longer.
//! Holds: nobody with right credentials is ever late or refused, whatever else comes from the same address; no more
//! answers are held back at a time than may be, and a tenth of them for one address; beyond that an attempt is answered
//! at once, with 429. A held answer holds nothing but its connection, and is let go when the router finishes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::auth::Refusal;
use super::respond::Refused;
use super::worker::{Phase, Worker};
use crate::core::addresses::Place;
use crate::core::failures::Verdict;
use crate::core::outcome::Outcome;

/// An answer to be held back. Dropping it gives its place back.
#[derive(Debug)]
pub(crate) struct Late {
    delay: Duration,
    worker: Arc<Worker>,
    _place: Option<Place>,
}

/// What an attempt that failed is answered with, and when.
pub(crate) fn judge(worker: &Arc<Worker>, client: IpAddr, refusal: Refusal, now: Instant) -> Refused {
    let refused = Refused::new(Outcome::Unauthorized, refusal.message());
    if !refusal.is_attempt() {
        return refused;
    }
    let (rules, auth) = (&worker.limits().failures, &worker.shared.vitals.auth);
    let Verdict::Late { delay, free_in } = auth.failures.note(rules, client, worker.micros(now)) else {
        return refused;
    };
    match Late::enter(worker, client, delay) {
        Some(late) => {
            auth.late.bump();
            refused.late(late)
        }
        None => {
            let seconds = u32::try_from(free_in.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            let message = format!(
                "{} This address failed too often, and as many answers to it are held back as may be. Correct the \
                 credentials; with right ones it is served at any time.",
                refusal.message()
            );
            Refused::new(Outcome::TooManyFailures, message).retry_after(seconds)
        }
    }
}

impl Late {
    fn enter(worker: &Arc<Worker>, client: IpAddr, delay: Duration) -> Option<Self> {
        let (held, most) = (&worker.shared.vitals.auth.held, worker.limits().failures.held_max);
        let place = worker.shared.late.enter(client).ok()?;
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < most).then_some(held + 1)).ok()?;
        Some(Self { delay, worker: worker.clone(), _place: place })
    }

    /// How long it is to be held back.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    /// Ends when the answer may go.
    pub(crate) async fn pass(self) {
        let mut phase = self.worker.shared.phase.clone();
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => {}
        }
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.worker.shared.vitals.auth.held.fetch_sub(1, Ordering::Relaxed);
    }
}
