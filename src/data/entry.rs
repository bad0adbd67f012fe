//! The door: whether the router takes another request of an endpoint at all, before it is given to a deployment. Also
//! the words for whom a limit of the router as a whole, or the endpoint's share of it, is in the way.
//!
//! Holds: who entered is counted, for all and for the endpoint, until [`leave`]; that is the ledger's to call. While memory
//!        is short nobody enters but a few, so that a router that cannot come down by turning away is not shut for ever.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::respond::Refused;
use super::worker::Worker;
use crate::core::facts::Name;
use crate::core::memory::REQUESTS_ALWAYS;
use crate::core::outcome::Outcome;
use crate::core::shares::{self, Limit, Over, Rule, Shares};
use crate::core::snapshot::Endpoint;

/// Counts a request of this endpoint as under way, unless there are too many.
pub(crate) fn enter(worker: &Worker, endpoint: &Endpoint, now: Instant) -> Result<(), Refused> {
    let (vitals, limits) = (&worker.shared.vitals, worker.limits());
    if vitals.memory.is_short() && vitals.requests.load(Ordering::Relaxed) >= REQUESTS_ALWAYS {
        vitals.memory.refused_requests.bump();
        return Err(turn_away(worker, &endpoint.name, &endpoint.shares, Limit::Memory, now));
    }
    let rule = Rule { max: limits.requests_max, percent: limits.share_percent_max };
    rule.take(&vitals.requests, &endpoint.shares.requests, 1).map_err(|over| {
        let limit = if over == Over::Whole { Limit::Requests } else { Limit::RequestsShare };
        turn_away(worker, &endpoint.name, &endpoint.shares, limit, now)
    })
}

/// The end of a request that had entered.
pub(crate) fn leave(worker: &Worker, endpoint: &Endpoint) {
    shares::give_back(&worker.shared.vitals.requests, &endpoint.shares.requests, 1);
}

/// Counts a request that ran into a limit, tells the log now and then, and the client which limit it was.
pub(crate) fn turn_away(worker: &Worker, name: &Name, shares: &Shares, limit: Limit, now: Instant) -> Refused {
    shares.refuse(limit);
    let message = explain(worker, name, shares, limit);
    if limit != Limit::Memory && shares.should_tell(worker.micros(now) / 1_000_000) {
        tracing::warn!(
            target: "scorefront::limits",
            endpoint = %name, limit = limit.label(), refused = shares.refused(limit),
            "requests are turned away: {message}"
        );
    }
    let in_line = matches!(limit, Limit::Queue | Limit::QueueShare);
    let outcome = if in_line { Outcome::QueueFull } else { Outcome::Overloaded };
    let refused = Refused::new(outcome, message).over(limit.label());
    // What the connection holds is given back too.
    if limit == Limit::Memory { refused.closing() } else { refused }
}

fn explain(worker: &Worker, name: &Name, shares: &Shares, limit: Limit) -> String {
    let (limits, vitals) = (worker.limits(), &worker.shared.vitals);
    let (requests, queued, percent) = (limits.requests_max, limits.queued_max, limits.share_percent_max);
    let why = match limit {
        Limit::Memory => {
            let max = vitals.memory.limit();
            return format!(
                "Too many requests for service {name} (overloaded): the router has more memory than max-memory-bytes \
                 ({max}), and takes nothing new until it has less. Ask again later, add routers, or raise this setting."
            );
        }
        Limit::Descriptors => {
            return format!(
                "Endpoint {name}: the router has no file descriptor left to connect to a replica with. Ask again later, \
                 add routers, or raise its limit of open files."
            );
        }
        Limit::Requests => {
            format!("as many requests are under way over all endpoints as may (max-requests {requests})")
        }
        Limit::RequestsShare => {
            let own = shares.requests.load(Ordering::Relaxed);
            format!(
                "{own} requests to this endpoint are under way, which is its share of max-requests ({requests}, \
                 max-share-percent {percent})"
            )
        }
        Limit::Queue => format!(
            "all slots are taken, and as many requests wait over all deployments as may (max-queued-requests {queued})"
        ),
        Limit::QueueShare => {
            let own = shares.queued.load(Ordering::Relaxed);
            format!(
                "all slots are taken, and {own} requests to this endpoint wait, which is its share of \
                 max-queued-requests ({queued}, max-share-percent {percent})"
            )
        }
        Limit::Replay | Limit::ReplayShare => "as much is kept of request bodies as may be".to_owned(),
    };
    format!(
        "Too many requests for service {name} (overloaded): {why}. Add replicas to the deployments that are behind, or \
         raise these settings of the router."
    )
}
