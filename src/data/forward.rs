//! From a slot to the head of an answer: connect, send, wait, and try again where that is safe.
//!
//! What may be tried again, never past the deadline, at most `max-attempts` times and within the deployment's retry
//! budget:
//! - a connect that was refused or timed out, or a TLS handshake that failed: nothing was sent (a slow one is not waited for
//!   where another request leaves its connection meanwhile: [`reach`]);
//! - a reused connection that died before the first byte of the answer: the replica closed it while it idled. It may
//!   also have died in the middle of the work, which is why `retry-reused: "false"` switches this off. It is dead too when
//!   the replica acknowledges nothing for `upstream-unacknowledged-ms`; that counts like a connect that failed.
//!
//! Only if the body is unsent or kept whole. Everything else that breaks before the answer is a 502.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::admit;
use super::entry;
use super::health::{is_our_shortage, is_without_descriptors, note_connect_failure, note_connect_success};
use super::ledger::Ledger;
use super::outgoing::Outgoing;
use super::pending::{Busy, Lease, Pending};
use super::reach;
use super::respond::Refused;
use super::upload::Flaw;
use super::upstream::{Answered, Cause, HeadFlaw};
use super::vanished::{self, is_silence};
use super::worker::Worker;
use crate::core::limits::Limits;
use crate::core::outcome::Outcome;
use crate::core::replica_tls::Wire;
use crate::core::shares::Limit;
use crate::core::snapshot::Deployment;
use crate::core::state::AnswerFlaw;

/// The head of an answer, with what it holds.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) answered: Answered,
    pub(crate) busy: Busy,
}

/// Why an attempt failed.
enum Failure {
    /// Nothing was sent. The slot is still held.
    Connect(Lease, io::Error),
    /// The connection broke before the answer. Whether it had been used before and no byte of an answer came, and whether
    /// the request is known not to have been sent at all.
    Broke { stale: bool, unsent: bool, detail: String },
    /// The deadline passed.
    Deadline,
    /// The request body came too slowly.
    Slow,
}

/// How an attempt is made.
#[derive(Clone, Copy)]
struct Plan {
    /// Whether an idle connection will do.
    may_reuse: bool,
    /// Whether no other attempt may follow.
    last: bool,
    /// When it begins.
    now: Instant,
    deadline: Instant,
}

/// Refuses what is for a deployment whose replicas must not be spoken to, before it waits for one of them.
pub(crate) fn check_wire(deployment: &Deployment) -> Result<(), Refused> {
    let Wire::Closed(why) = &deployment.wire else { return Ok(()) };
    let (endpoint, name) = (&deployment.endpoint, &deployment.name);
    let message = format!(
        "Endpoint {endpoint}, deployment {name}: TLS towards its replicas was asked for and cannot be had. {why}."
    );
    Err(Refused::new(Outcome::ConnectFailed, message))
}

/// Forwards a request until there is an answer or nothing more can be tried.
pub(crate) async fn forward(
    worker: &Arc<Worker>,
    deployment: &Arc<Deployment>,
    outgoing: &mut Outgoing,
    mut lease: Lease,
    ledger: &mut Ledger,
    deadline: Instant,
) -> Result<Answer, Refused> {
    let attempts_max = worker.limits().attempts_max;
    let mut may_reuse = true;
    // Slots of replicas that could not be reached, the first one first; given back when one is reached.
    let mut bad = Vec::new();
    loop {
        ledger.record.attempts += 1;
        ledger.record.replica = Some(lease.replica().clone());
        let last = ledger.record.attempts >= attempts_max;
        // The first one begins when the slot was taken.
        let now = ledger.record.admitted.filter(|_| ledger.record.attempts == 1).unwrap_or_else(Instant::now);
        let plan = Plan { may_reuse, last, now, deadline };
        let failure = match attempt(worker, deployment, outgoing, lease, &mut bad, ledger, plan).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if let Some(refused) = flawed(ledger) {
            return Err(refused);
        }
        let may_retry = !last && Instant::now() < deadline && outgoing.is_replayable();
        match failure {
            Failure::Deadline => return Err(timed_out(deployment, ledger)),
            Failure::Slow => return Err(too_slow(worker, deployment)),
            // Another replica would need a descriptor too.
            Failure::Connect(_, error) if is_without_descriptors(&error) => return Err(short(worker, ledger, &error)),
            Failure::Connect(held, error) => {
                if !is_our_shortage(&error) {
                    note_connect_failure(worker, deployment, held.replica());
                }
                if !may_retry || !within_budget(worker, deployment) {
                    return Err(connect_failed(deployment, &held, &error));
                }
                bad.push(held);
                let other = admit::admit_elsewhere(worker, deployment, &bad, ledger, deadline).await;
                // All were tried: the one that was tried longest ago may have come back.
                lease = other.unwrap_or_else(|| bad.remove(0));
            }
            Failure::Broke { stale, unsent, detail } => {
                let safe = unsent || (stale && deployment.settings.retry_reused);
                // Where one idle connection died, others of its age have died too.
                may_reuse = false;
                let retry = may_retry && safe && within_budget(worker, deployment);
                if !retry {
                    return Err(closed(deployment, detail));
                }
                let broken = ledger.record.replica.clone();
                lease = admit::admit_again(worker, deployment, broken.as_deref(), ledger, deadline).await?;
            }
        }
    }
}

async fn attempt(
    worker: &Arc<Worker>,
    deployment: &Arc<Deployment>,
    outgoing: &mut Outgoing,
    lease: Lease,
    bad: &mut Vec<Lease>,
    ledger: &mut Ledger,
    plan: Plan,
) -> Result<Answer, Failure> {
    let (mut now, deadline) = (plan.now, plan.deadline);
    let replica = lease.replica();
    let take = || worker.pool.take(replica.state.serial(), replica.address, &deployment.wire, now);
    let parked = if plan.may_reuse { take() } else { None };
    let counts = &worker.shared.vitals.connections;
    let upstream = match parked {
        Some(upstream) => upstream,
        None => {
            let until = deadline.min(now + worker.limits().connect_timeout);
            let upstream = match reach::connect(worker, replica, &deployment.wire, now, until).await {
                Ok(Ok(upstream)) => upstream,
                Ok(Err(error)) => return Err(Failure::Connect(lease, error)),
                Err(_) if until == deadline => return Err(Failure::Deadline),
                Err(_) => {
                    let error = io::Error::new(io::ErrorKind::TimedOut, overdue(deployment));
                    return Err(Failure::Connect(lease, error));
                }
            };
            now = Instant::now();
            upstream
        }
    };
    let reused = upstream.reused;
    if reused {
        counts.upstream_reused.bump(worker.index);
    } else {
        counts.upstream_opened.bump();
        note_connect_success(worker, deployment, replica);
    }
    bad.clear();
    // What was sent on a new connection is not sent again.
    let body = outgoing.body(reused && !plan.last && deployment.settings.retry_reused);
    let mut pending = Pending::send(upstream, outgoing.take_head(), body, Busy::new(lease, worker.clone()));
    let reply = wait_for_reply(worker, &mut pending, ledger, now, deadline).await?;
    match (reply, pending.take_busy()) {
        (Ok(answered), Some(busy)) => {
            ledger.record.answered = Some(Instant::now());
            if let Some(upload) = &outgoing.upload {
                upload.settle();
            }
            if reused && busy.replica().state.is_left_out() {
                // The request that was to try it had a connection left from before: this answer is the verdict.
                note_connect_success(worker, deployment, busy.replica());
            }
            Ok(Answer { answered, busy })
        }
        (Ok(_), None) => Err(Failure::Broke { stale: false, unsent: false, detail: "the slot was lost".to_owned() }),
        (Err(broken), busy) => {
            (outgoing.head, outgoing.room) = broken.head;
            if let Some(flaw) = flaw(&broken.cause) {
                deployment.state.shard(worker.index).refuse_answer(flaw);
            }
            let is_gone = matches!(&broken.cause, Cause::Connection(error) if is_silence(error));
            if is_gone && let Some(busy) = &busy {
                note_connect_failure(worker, deployment, busy.replica());
            }
            match busy {
                Some(busy) if broken.is_unsent => drop(busy.unused()),
                Some(busy) => busy.done(None, Instant::now()),
                None => {}
            }
            let detail = describe(&broken.cause, worker.limits());
            Err(Failure::Broke { stale: broken.is_stale, unsent: broken.is_unsent, detail })
        }
    }
}

/// Waits for the head of the answer. The alarm is the deadline, or the end of the patience with a request body that is
/// still on its way, or when a new connection is to be watched, whichever comes first.
async fn wait_for_reply(
    worker: &Worker,
    pending: &mut Pending,
    ledger: &Ledger,
    now: Instant,
    deadline: Instant,
) -> Result<super::pending::Reply, Failure> {
    let body_timeout = worker.limits().body_timeout;
    let mut due = if ledger.upload.is_some() { deadline.min(now + body_timeout) } else { deadline };
    let mut watch_at = pending.unwatched_for().map(|silence| now + silence);
    let mut alarm = ledger.take_alarm(watch_at.map_or(due, |at| at.min(due)));
    let reply = poll_fn(|cx| {
        if let Poll::Ready(Some(reply)) = pending.poll(cx) {
            return Poll::Ready(Ok(reply));
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if watch_at.is_some_and(|at| at <= now) {
                watch_at = None;
                pending.keep_watch();
            }
            // A body that waits for the replica to read on is not the client's fault.
            let next = || ledger.upload.as_ref().and_then(|upload| upload.waits_until(now));
            match judge_ring(now, due, deadline, next) {
                Ok(at) => due = at,
                Err(failure) => return Poll::Ready(Err(failure)),
            }
            alarm.as_mut().reset(watch_at.map_or(due, |at| at.min(due)).into());
        }
        Poll::Pending
    })
    .await;
    ledger.keep_alarm(alarm);
    reply
}

/// What it means that the alarm rings, which was `due` then: when it is due again, or what failed. `next` is when the
/// client will have been waited for too long. It is not asked before time: that is when a client begins to be timed.
fn judge_ring(
    now: Instant,
    due: Instant,
    deadline: Instant,
    next: impl FnOnce() -> Option<Instant>,
) -> Result<Instant, Failure> {
    if now < due {
        // It was set by an exchange before, or for something else.
        return Ok(due);
    }
    if now >= deadline {
        return Err(Failure::Deadline);
    }
    match next() {
        Some(next) if next <= now => Err(Failure::Slow),
        next => Ok(next.map_or(deadline, |next| next.min(deadline))),
    }
}

/// Where the request body is to blame, that is what the client is told.
pub(crate) fn flawed(ledger: &Ledger) -> Option<Refused> {
    let (outcome, message) = match ledger.upload.as_ref()?.progress().flaw? {
        Flaw::TooLarge => {
            (Outcome::BodyTooLarge, "The request body is over max-body-bytes of its deployment or of the router.")
        }
        Flaw::Malformed => (Outcome::Malformed, "The request body is not valid: its chunks cannot be read."),
        Flaw::BrokenOff | Flaw::Cut => (Outcome::ClientGone, "The client broke off its request."),
    };
    Some(Refused::new(outcome, message).closing())
}

fn timed_out(deployment: &Deployment, ledger: &Ledger) -> Refused {
    let (endpoint, name) = (&deployment.endpoint, &deployment.name);
    let uploading = ledger.upload.as_ref().is_some_and(|upload| upload.progress().waiting_since.is_some());
    if uploading {
        let message = format!(
            "Endpoint {endpoint}, deployment {name}: the request body did not arrive within request-timeout-ms \
             ({}).",
            deployment.settings.request_timeout.as_millis()
        );
        return Refused::new(Outcome::RequestTooSlow, message).closing();
    }
    let message = format!(
        "Endpoint {endpoint}, deployment {name}: no answer began within request-timeout-ms ({}). Raise \
         scorefront.dev/request-timeout-ms (at most 300000) if the model needs longer.",
        deployment.settings.request_timeout.as_millis()
    );
    Refused::new(Outcome::ReplicaTimeout, message)
}

fn too_slow(worker: &Worker, deployment: &Deployment) -> Refused {
    worker.shared.vitals.connections.slow_bodies.bump();
    let (endpoint, name, limits) = (&deployment.endpoint, &deployment.name, worker.limits());
    let (silence, rate) = (limits.body_timeout.as_millis(), limits.body_rate_min);
    let message = format!(
        "Endpoint {endpoint}, deployment {name}: the request body was silent for longer than body-timeout-ms ({silence}) \
         or came more slowly than min-body-bytes-per-second ({rate})."
    );
    Refused::new(Outcome::RequestTooSlow, message).closing()
}

fn short(worker: &Worker, ledger: &Ledger, error: &io::Error) -> Refused {
    let Some(endpoint) = ledger.record.endpoint.clone() else {
        return Refused::new(Outcome::Overloaded, error.to_string());
    };
    entry::turn_away(worker, &endpoint.name, &endpoint.shares, Limit::Descriptors, Instant::now())
}

/// What took too long.
fn overdue(deployment: &Deployment) -> &'static str {
    match deployment.wire {
        Wire::Tls(_) => "connect-timeout-ms passed before the TLS handshake was over",
        Wire::Plain | Wire::Closed(_) => "connect-timeout-ms passed",
    }
}

fn connect_failed(deployment: &Deployment, lease: &Lease, error: &io::Error) -> Refused {
    let (endpoint, name, replica) = (&deployment.endpoint, &deployment.name, &lease.replica().name);
    let message = format!("Endpoint {endpoint}, deployment {name}: could not connect to replica {replica}: {error}.");
    Refused::new(Outcome::ConnectFailed, message)
}

fn closed(deployment: &Deployment, detail: String) -> Refused {
    let (endpoint, name) = (&deployment.endpoint, &deployment.name);
    let message =
        format!("Replica closed connection before replying. Endpoint {endpoint}, deployment {name}: {detail}.");
    Refused::new(Outcome::ReplicaReset, message)
}

/// What is wrong with the head of the answer, where it is that.
fn flaw(cause: &Cause) -> Option<AnswerFlaw> {
    let Cause::Head(flaw) = cause else { return None };
    Some(match flaw {
        HeadFlaw::TooLarge => AnswerFlaw::TooLarge,
        HeadFlaw::Malformed(_) => AnswerFlaw::Malformed,
        HeadFlaw::TransferCoding => AnswerFlaw::TransferCoding,
    })
}

fn describe(cause: &Cause, limits: &Limits) -> String {
    match cause {
        Cause::Closed => "the connection ended before the head of its answer did".to_owned(),
        Cause::Connection(error) if is_silence(error) => vanished::describe(error, limits),
        Cause::Connection(error) => format!("the connection broke ({error})"),
        Cause::Body(error) => error.to_string(),
        Cause::Head(HeadFlaw::TooLarge) => {
            "the head of its answer is over max-answer-head-bytes, or has more than 100 headers".to_owned()
        }
        Cause::Head(HeadFlaw::Malformed(what)) => format!("its answer is not valid HTTP ({what})"),
        Cause::Head(HeadFlaw::TransferCoding) => "its answer has a transfer coding other than chunked".to_owned(),
    }
}

fn within_budget(worker: &Worker, deployment: &Deployment) -> bool {
    let shard = deployment.state.shard(worker.index);
    let requests = deployment.state.total(|shard| shard.completed.read());
    let allowed = deployment.state.pace.lock().try_retry(requests, Instant::now());
    if allowed {
        shard.retries.bump()
    } else {
        shard.retries_denied.bump()
    }
    allowed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_alarm_of_an_exchange_before_times_nobody() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let early = judge_ring(at(3), at(10), at(60), || panic!("the client is not timed yet"));
        assert!(matches!(early, Ok(due) if due == at(10)));
        assert!(matches!(judge_ring(at(10), at(10), at(60), || Some(at(15))), Ok(due) if due == at(15)));
        assert!(matches!(judge_ring(at(10), at(10), at(60), || Some(at(99))), Ok(due) if due == at(60)));
        assert!(matches!(judge_ring(at(10), at(10), at(60), || None), Ok(due) if due == at(60)));
        assert!(matches!(judge_ring(at(10), at(10), at(60), || Some(at(10))), Err(Failure::Slow)));
        assert!(matches!(judge_ring(at(60), at(60), at(60), || Some(at(61))), Err(Failure::Deadline)));
    }
}
