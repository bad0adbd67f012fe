//! What Services ask of the router as a whole that it does not have, or does not allow.

use std::sync::Arc;

use super::super::facts::{AuthMode, DeploymentFacts, Problem};
use super::super::snapshot::Access;

/// What the settings of the router mean for endpoints. By default it has everything and limits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Whether it has a source of keys that tokens are checked against.
    pub takes_tokens: bool,
    /// Its own limit of request bodies.
    pub body_bytes_max: u64,
}

impl Default for Router {
    fn default() -> Self {
        Self { takes_tokens: true, body_bytes_max: u64::MAX }
    }
}

impl Router {
    /// `services` are all Services of the endpoint in its namespace, the oldest first.
    pub(super) fn judge(self, services: &[&Arc<DeploymentFacts>], access: &Access, problems: &mut Vec<Problem>) {
        let asking = services.iter().find(|facts| facts.settings.auth == AuthMode::Token);
        if let (Access::Token, Some(asking), false) = (access, asking, self.takes_tokens) {
            let message = format!(
                "{} {} asks for tokens and the router has no keys to check them with, so every request is refused with \
                 401: set one of token-jwks, token-jwks-url and token-jwks-secret of the router, or say \"key\" on every \
                 Service of it",
                asking.form.word(),
                asking.endpoint,
            );
            problems.push(problem(asking, "auth-mode", message));
        }
        for facts in services {
            let Some(own) = facts.settings.body_bytes_max.filter(|&own| own > self.body_bytes_max) else { continue };
            let message = format!(
                "{own} has no effect: the router's max-body-bytes is {}; raise that setting of the router, or lower this",
                self.body_bytes_max
            );
            problems.push(problem(facts, "max-body-bytes", message));
        }
    }
}

fn problem(facts: &DeploymentFacts, field: &str, message: String) -> Problem {
    let field = format!("scorefront.dev/{field}");
    Problem { kind: "Service", object: facts.object.clone(), field, message }
}
