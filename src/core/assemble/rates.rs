//! The rate limits of an endpoint: of its Services, the oldest that says anything about them decides.

use std::sync::Arc;

use super::super::facts::{DeploymentFacts, Problem};
use super::super::limiter::{Limiter, Meters, Rates};
use super::super::snapshot::Access;

/// `services` are all Services of the endpoint in its namespace, the oldest first.
pub(super) fn decide(
    services: &[&Arc<DeploymentFacts>],
    access: &Access,
    meters: Arc<Meters>,
    problems: &mut Vec<Problem>,
) -> Limiter {
    let keys = match access {
        Access::Open | Access::Token => meters.of_keys(&[]),
        Access::Keys(keys) => meters.of_keys(keys),
    };
    let mut speaking = services.iter().filter(|facts| facts.settings.rates != Rates::default());
    let Some(first) = speaking.next() else { return Limiter { rates: Rates::default(), meters, keys } };
    let rates = first.settings.rates;
    let mut report = |facts: &DeploymentFacts, field: &str, message: String| {
        problems.push(Problem {
            kind: "Service",
            object: facts.object.clone(),
            field: format!("scorefront.dev/{field}"),
            message,
        });
    };
    for facts in speaking.filter(|facts| facts.settings.rates != rates) {
        let message = format!(
            "what this Service says about rate limits is ignored: the older Service {} says something else; all \
             deployments must say the same, or one alone",
            first.object
        );
        report(facts, "rate-limit-per-second", message);
    }
    for (limit, prefix) in [(&rates.endpoint, ""), (&rates.key, "key-")] {
        if limit.burst.is_some() && limit.per_second.is_none() {
            let message = format!("has no effect without {prefix}rate-limit-per-second");
            report(first, &format!("{prefix}rate-limit-burst"), message);
        }
    }
    if rates.key.is_set() && matches!(access, Access::Open) {
        let message = "limits of keys have no effect where neither a key nor a token is asked for";
        report(first, "key-rate-limit-per-second", message.into());
    }
    Limiter { rates, meters, keys }
}
