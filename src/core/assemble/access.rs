//! Who may score at an endpoint. Fails closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::facts::{AuthMode, DeploymentFacts, KeyDigest, Problem, SecretFacts};
use super::super::snapshot::Access;

/// The field that problems with credentials are reported at.
const FIELD: &str = "scorefront.dev/auth-mode";

/// Each request without a valid key is compared with all of them.
const KEYS_MAX: usize = 32;

/// `services` are all Services of the endpoint in its namespace, the oldest first; also those that are not served.
pub(super) fn decide(
    services: &[&Arc<DeploymentFacts>],
    secrets: Option<&BTreeMap<Arc<str>, Arc<SecretFacts>>>,
    problems: &mut Vec<Problem>,
) -> Access {
    let first = |auth| services.iter().find(|facts| facts.settings.auth == auth);
    let Some(asking) = first(AuthMode::Key).or_else(|| first(AuthMode::Token)) else { return Access::Open };
    report_milder(asking, services, problems);
    if asking.settings.auth == AuthMode::Token {
        return Access::Token;
    }
    let all = secrets.into_iter().flat_map(BTreeMap::values).flat_map(|secret| &secret.keys);
    let mut keys: Vec<KeyDigest> = all.copied().take(KEYS_MAX + 1).collect();
    if keys.len() > KEYS_MAX {
        keys.truncate(KEYS_MAX);
        let message = format!(
            "the Secrets of the endpoint have more than {KEYS_MAX} keys; those of the last Secrets by name are not valid"
        );
        problems.push(problem(asking, message));
    }
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        let endpoint = &asking.endpoint;
        problems.push(problem(
            asking,
            format!(
                "{} {endpoint} has no valid key, so every request is refused with 401: create a Secret in namespace \
                 {} with the label ml.azure.com/endpoint-name: {endpoint} and the keys primaryKey and secondaryKey, \
                 or say \"none\" on every Service of it",
                asking.form.word(),
                asking.object.namespace,
            ),
        ));
    }
    Access::Keys(keys.into())
}

/// Whoever asks for less than the strictest is told that it has no effect.
fn report_milder(asking: &DeploymentFacts, services: &[&Arc<DeploymentFacts>], problems: &mut Vec<Problem>) {
    let what = if asking.settings.auth == AuthMode::Token { "tokens" } else { "keys" };
    for facts in services.iter().filter(|facts| facts.settings.auth != asking.settings.auth) {
        let word = if facts.settings.auth == AuthMode::Token { "aml_token" } else { "none" };
        let message = format!(
            "\"{word}\" has no effect while {} asks for {what}: all deployments must say the same",
            asking.object
        );
        problems.push(problem(facts, message));
    }
}

fn problem(facts: &DeploymentFacts, message: String) -> Problem {
    Problem { kind: "Service", object: facts.object.clone(), field: FIELD.into(), message }
}
