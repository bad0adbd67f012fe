//! The rules about CORS of an endpoint: of its Services, the oldest that says anything about it decides.

use std::sync::Arc;

use super::super::cors::{Cors, Rules};
use super::super::facts::{DeploymentFacts, Problem};

/// The field that problems are reported at.
const FIELD: &str = "scorefront.dev/cors-origins";

/// `services` are all Services of the endpoint in its namespace, the oldest first.
pub(super) fn decide(services: &[&Arc<DeploymentFacts>], problems: &mut Vec<Problem>) -> Option<Arc<Cors>> {
    let mut speaking = services.iter().filter(|facts| facts.settings.cors != Rules::default());
    let first = speaking.next()?;
    let report = |facts: &DeploymentFacts, message: String| Problem {
        kind: "Service",
        object: facts.object.clone(),
        field: FIELD.into(),
        message,
    };
    for facts in speaking.filter(|facts| facts.settings.cors != first.settings.cors) {
        let message = format!(
            "what this Service says about CORS is ignored: the older Service {} says something else; all deployments \
             must say the same, or one alone",
            first.object
        );
        problems.push(report(facts, message));
    }
    let cors = first.settings.cors.compile();
    if cors.is_none() {
        let message = "is missing, so the other annotations about CORS have no effect".to_owned();
        problems.push(report(first, message));
    }
    cors.map(Arc::new)
}
