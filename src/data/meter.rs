//! The rate limits of an endpoint, and whose limit a request comes under.

use std::time::Instant;

use http::HeaderMap;

use super::auth;
use super::link::Link;
use super::respond::Refused;
use crate::core::limiter::{Caller, Passed};
use crate::core::outcome::Outcome;
use crate::core::snapshot::Endpoint;
use crate::core::subjects::Subject;

/// Asks the limits, for a request whose credentials were found valid; `subject` is that of its token.
pub(crate) fn pass(
    link: &Link,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    subject: Option<Subject>,
    now: Instant,
) -> Result<Passed, Refused> {
    let limiter = &endpoint.limiter;
    let caller = caller(link, endpoint, headers, subject);
    limiter.admit(caller, link.worker.shared.vitals.nanos(now)).map_err(|exceeded| {
        let seconds = exceeded.retry_after_seconds;
        let (name, why) = (&endpoint.name, limiter.explain(exceeded));
        let message =
            format!("Endpoint {name}: {why} Ask again in {seconds} s, or ask its operator to raise the limit.");
        Refused::new(Outcome::RateLimited, message).retry_after(seconds).over(exceeded.which.label())
    })
}

fn caller(link: &Link, endpoint: &Endpoint, headers: &HeaderMap, subject: Option<Subject>) -> Caller {
    if let Some(subject) = subject {
        return Caller::Subject { subject, places: link.worker.limits().token_subjects_max };
    }
    let is_asked = endpoint.limiter.asks_for_caller();
    let key = is_asked.then(|| auth::key_index(&endpoint.access, headers)).flatten();
    key.map_or(Caller::Anybody, Caller::Key)
}
