//! Admission of one request: a slot at once, or a wait in line.
//!
//! The seam between a request and [`crate::core::gate`]. A wait ends by a slot, by `max-queue-wait-ms`, by the
//! request's own deadline, or because the client went away, in which case this future is dropped and its place in
//! line, or the slot it was just granted, passes on.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::time::sleep_until;

use super::ledger::Ledger;
use super::pending::Lease;
use super::respond::Refused;
use super::worker::{Phase, Worker};
use super::{entry, forward};
use crate::core::gate::{Entered, Place};
use crate::core::outcome::Outcome;
use crate::core::queue::{Ticket, Turn};
use crate::core::shares::{self, Limit, Over, Rule, Shares};
use crate::core::snapshot::{Deployment, Replica};

/// A place in line that is given up when it is dropped.
struct Waiting<'a> {
    deployment: &'a Deployment,
    ticket: Option<Ticket>,
}

impl Waiting<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<Option<Arc<Replica>>> {
        let Some(ticket) = self.ticket else { return Poll::Ready(None) };
        match self.deployment.state.gate.poll(ticket, waker) {
            Turn::Waiting => Poll::Pending,
            Turn::Granted(replica) => {
                self.ticket = None;
                Poll::Ready(Some(replica))
            }
            Turn::Dissolved => {
                self.ticket = None;
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.deployment.state.gate.leave(ticket);
        }
    }
}

/// Claims a slot of a replica, or waits for one.
pub(crate) async fn admit(
    worker: &Arc<Worker>,
    deployment: &Arc<Deployment>,
    ledger: &mut Ledger,
    deadline: Instant,
) -> Result<Lease, Refused> {
    let started = ledger.record.started;
    let gate = &deployment.state.gate;
    let admitted = gate.try_claim(&deployment.replicas, worker.micros(started), &mut worker.dice());
    let result = match admitted {
        Some(replica) => Ok(replica),
        None => {
            let settings = &deployment.settings;
            let length_max = if settings.queue_wait_max.is_zero() { 0 } else { settings.queue_length_max };
            let until = deadline.min(started + settings.queue_wait_max);
            let place = Place::Back { length_max };
            wait(worker, deployment, ledger, place, until).await.map_err(|end| {
                let timed_out = end == End::TimedOut && until == deadline;
                refused(worker, deployment, if timed_out { End::Deadline } else { end }, ledger)
            })
        }
    };
    // Where there was nothing to wait for, the time from the head to here is the router's own.
    let now = Instant::now();
    let queued = if admitted_at_once(ledger) { std::time::Duration::ZERO } else { now - started };
    ledger.record.queued = Some(queued);
    let replica = result?;
    ledger.record.admitted = Some(now);
    Ok(Lease::new(deployment.clone(), replica))
}

fn admitted_at_once(ledger: &Ledger) -> bool {
    ledger.record.queue_position.is_none()
}

/// A slot of a replica that is not among the `bad` ones, for a request that could not reach those: a free one at once,
/// else the next one that becomes free, before everybody who did not have a turn yet. The bad slots stay taken
/// meanwhile, so that nobody falls for them, this request included. `None` where there is no other, or not in time.
pub(crate) async fn admit_elsewhere(
    worker: &Arc<Worker>,
    deployment: &Arc<Deployment>,
    bad: &[Lease],
    ledger: &mut Ledger,
    deadline: Instant,
) -> Option<Lease> {
    let not: Vec<u64> = bad.iter().map(|lease| lease.replica().state.serial()).collect();
    if let Some(other) = claim_other(worker, deployment, &not) {
        return Some(other);
    }
    if deployment.replicas.iter().all(|other| not.contains(&other.state.serial())) {
        return None;
    }
    let until = deadline.min(Instant::now() + deployment.settings.queue_wait_max);
    let replica = wait(worker, deployment, ledger, Place::Front, until).await.ok()?;
    Some(Lease::new(deployment.clone(), replica))
}

/// A slot for a request whose connection broke before the answer: of another replica if one is free, else of whichever
/// is free first, before everybody who did not have a turn yet.
pub(crate) async fn admit_again(
    worker: &Arc<Worker>,
    deployment: &Arc<Deployment>,
    broken: Option<&Replica>,
    ledger: &mut Ledger,
    deadline: Instant,
) -> Result<Lease, Refused> {
    let not = broken.map(|replica| replica.state.serial());
    if let Some(other) = claim_other(worker, deployment, not.as_slice()) {
        return Ok(other);
    }
    let until = deadline.min(Instant::now() + deployment.settings.queue_wait_max);
    let waited = wait(worker, deployment, ledger, Place::Front, until).await;
    let replica = waited.map_err(|end| refused(worker, deployment, end, ledger))?;
    Ok(Lease::new(deployment.clone(), replica))
}

fn claim_other(worker: &Worker, deployment: &Arc<Deployment>, not: &[u64]) -> Option<Lease> {
    let now_us = worker.micros(Instant::now());
    let other = deployment.state.gate.claim_other(&deployment.replicas, not, now_us, &mut worker.dice())?;
    Some(Lease::new(deployment.clone(), other))
}

/// How a wait ended without a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    TimedOut,
    Deadline,
    Full(usize),
    /// As many wait over all deployments as may, or of this endpoint.
    Crowded(Limit),
    Removed,
    Draining,
    /// The request body will never be whole.
    Flawed,
}

/// Counts one waiting request for as long as it lives.
struct Queued<'a> {
    all: &'a AtomicUsize,
    shares: Arc<Shares>,
}

impl<'a> Queued<'a> {
    fn new(worker: &'a Worker, shares: Arc<Shares>) -> Result<Self, End> {
        let (vitals, limits) = (&worker.shared.vitals, worker.limits());
        let rule = Rule { max: limits.queued_max, percent: limits.share_percent_max };
        let over = match rule.take(&vitals.queued, &shares.queued, 1) {
            Ok(()) => return Ok(Self { all: &vitals.queued, shares }),
            Err(over) => over,
        };
        vitals.crowded_out.bump();
        Err(End::Crowded(if over == Over::Whole { Limit::Queue } else { Limit::QueueShare }))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        shares::give_back(self.all, &self.shares.queued, 1);
    }
}

async fn wait(
    worker: &Arc<Worker>,
    deployment: &Deployment,
    ledger: &mut Ledger,
    place: Place,
    until: Instant,
) -> Result<Arc<Replica>, End> {
    let now_us = worker.micros(Instant::now());
    let _counted = match (place, &ledger.record.endpoint) {
        (Place::Back { length_max: 1.. }, Some(endpoint)) => Some(Queued::new(worker, endpoint.shares.clone())?),
        _ => None,
    };
    let entered = poll_fn(|cx| Poll::Ready(deployment.state.gate.enter(place, now_us, cx.waker()))).await;
    let (ticket, ahead) = match entered {
        Entered::Slot(replica) => return Ok(replica),
        Entered::Full { ahead } => {
            ledger.record.queue_position = Some(u32::try_from(ahead).unwrap_or(u32::MAX));
            return Err(End::Full(ahead));
        }
        Entered::Closed => return Err(End::Removed),
        Entered::Waiting { ticket, ahead } => (ticket, ahead),
    };
    ledger.record.queue_position.get_or_insert_with(|| u32::try_from(ahead).unwrap_or(u32::MAX));
    let mut waiting = Waiting { deployment, ticket: Some(ticket) };
    let mut alarm = std::pin::pin!(sleep_until(until.into()));
    let mut phases = worker.shared.phase.clone();
    let mut last_call = std::pin::pin!(phases.wait_for(|phase| *phase >= Phase::LastCall));
    poll_fn(|cx: &mut Context<'_>| {
        if let Some(upload) = &ledger.upload {
            upload.read_ahead(cx);
            if upload.progress().flaw.is_some() {
                return Poll::Ready(Err(End::Flawed));
            }
        }
        if let Poll::Ready(turn) = waiting.poll(cx.waker()) {
            return Poll::Ready(turn.ok_or(End::Removed));
        }
        if last_call.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(End::Draining));
        }
        alarm.as_mut().poll(cx).map(|()| Err(End::TimedOut))
    })
    .await
}

/// What the client of a request that found no slot is told: which limit it was, and what to change.
fn refused(worker: &Worker, deployment: &Deployment, end: End, ledger: &Ledger) -> Refused {
    let (endpoint, name, settings) = (&deployment.endpoint, &deployment.name, &deployment.settings);
    let gate = &deployment.state.gate;
    let ahead = match end {
        End::Full(ahead) => ahead,
        _ => gate.waiting(),
    };
    if end == End::Deadline {
        return Refused::new(
            Outcome::ReplicaTimeout,
            format!(
                "Endpoint {endpoint}, deployment {name}: no slot became free within request-timeout-ms ({}). Add \
                 replicas or raise scorefront.dev/request-timeout-ms.",
                settings.request_timeout.as_millis()
            ),
        );
    }
    if let Some(refused) = forward::flawed(ledger) {
        return refused;
    }
    if end == End::Draining {
        let message = format!("Endpoint {endpoint}: the router is shutting down before a slot became free. Ask again.");
        return Refused::new(Outcome::Draining, message);
    }
    if let (End::Crowded(limit), Some(of)) = (end, &ledger.record.endpoint) {
        return entry::turn_away(worker, &of.name, &of.shares, limit, ledger.record.started);
    }
    if end == End::Removed || !gate.has_replicas() {
        return Refused::new(
            Outcome::NoReplica,
            format!(
                "No ready replicas for service {endpoint}. Deployment {name} has no replica that is ready, and none \
                 became ready within max-queue-wait-ms ({}). Look at its pods.",
                settings.queue_wait_max.as_millis()
            ),
        );
    }
    let retry_after = {
        let mut pace = deployment.state.pace.lock();
        pace.observe(deployment.state.total(|shard| shard.completed.read()), Instant::now());
        pace.retry_after_seconds(ahead)
    };
    let waited = settings.queue_wait_max.as_millis();
    let (outcome, why) = match end {
        End::Full(0) => (
            Outcome::QueueFull,
            "all slots are taken and queueing is switched off (max-queue-wait-ms or max-queue-length is 0)".to_owned(),
        ),
        End::Full(ahead) => {
            let max = settings.queue_length_max;
            (Outcome::QueueFull, format!("{ahead} requests wait already (max-queue-length {max})"))
        }
        _ => {
            let position = ledger.record.queue_position.unwrap_or(0);
            (
                Outcome::QueueTimeout,
                format!("no slot became free within max-queue-wait-ms ({waited}); {position} were ahead at arrival"),
            )
        }
    };
    let slots = settings.slots_per_replica;
    let message = format!(
        "Too many requests for service {endpoint} (overloaded): deployment {name}: {why}. Add replicas, or raise \
         scorefront.dev/max-queue-wait-ms, scorefront.dev/max-queue-length or \
         scorefront.dev/max-concurrent-requests-per-instance ({slots})."
    );
    Refused::new(outcome, message).retry_after(retry_after)
}
